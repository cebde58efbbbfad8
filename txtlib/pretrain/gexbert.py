"""A GexBERT-like model: genes with their values in, the expression of genes that it was not shown out.

Rebuilt from text, not from code, of which none is public: Jiang and Hassanpour 2025 (arXiv 2504.09704). A gene is a
token of identity and value; an encoder that knows no order of genes reads some of them, and a summary token; a decoder
asks it, by identity alone, for others. Sizes, scalers and what the text leaves open are ours. The text speaks of an
autoencoder, so each question is asked again of the summary alone: nothing else would teach it anything. A value
is read off by the product with the gene's own identity, as a language model's words are. Identities may start from the
principal axes of the training part, as TxT's start from a protein network: a few hundred steps do not find
co-expression from nothing.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from txtlib.checkpoint import parts, read, write
from txtlib.cohort import Cohort, CohortError
from txtlib.preprocess import variable_genes
from txtlib.pretrain.apart import check_apart
from txtlib.pretrain.loop import pretrain
from txtlib.pretrain.masking import drawn_sets, observed_first

MODEL = "GexBERT-like model"  # the kind of file that GexBert.save writes
SMALL = 0.02
STARTS = ("axes", "random")
TOKENS_AT_ONCE = 32_000  # genes x patients per forward pass where no gradient is needed


class Restoring(nn.Module):
    """An encoder of shown genes and a decoder of asked ones; all initial numbers come from ``seed``."""

    def __init__(self, n_genes: int, width: int = 64, layers: int = 2, heads: int = 4, seed: int = 0):
        super().__init__()
        self.settings = dict(n_genes=n_genes, width=width, layers=layers, heads=heads)
        with torch.random.fork_rng(devices=[]):  # torch's layers draw from the global generator: leave it as it was
            torch.manual_seed(seed)
            self.genes = nn.Parameter(torch.randn(n_genes, width))  # (G, d)
            self.summary = nn.Parameter(SMALL * torch.randn(width))  # so that what it reads of a patient prevails
            self.value = nn.Sequential(nn.Linear(1, width), nn.GELU(), nn.Linear(width, width))
            self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
            self.norm = nn.LayerNorm(width)
            self.decoder = Block(width, heads)
            self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width))

    def encode(self, genes: Tensor, x: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Return the summary, then a vector for each gene shown, (B, 1 + K, d).

        genes (B, K) are gene codes, x (B, K) their values in SDs of the training part; hidden (B, K), where True, is a
        place that nobody looks at.
        """
        identity = self.genes[genes]  # (B, K, d)
        tokens = identity + identity * self.value(x[..., None])
        tokens = torch.cat([self.summary.expand(len(x), 1, -1), tokens], 1)
        for block in self.blocks:
            tokens = block(tokens, tokens, _with_summary(hidden))
        return self.norm(tokens)

    def decode(self, asked: Tensor, memory: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Return the values (B, M) of the genes asked (B, M), in SDs, from what ``encode`` returned."""
        decoded = self.decoder(self._queries(asked, memory), memory, _with_summary(hidden))
        return (self.out(decoded) * self.genes[asked]).mean(-1)

    def forward(self, genes: Tensor, x: Tensor, asked: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Show genes with their values (B, K), ask for others (B, M); return their values (B, M), in SDs."""
        return self.decode(asked, self.encode(genes, x, hidden), hidden)

    def asking(self, asked: Tensor, memory: Tensor) -> Tensor:
        """Return how much each asked gene looks at the summary and at each gene shown, (B, H, M, 1 + K)."""
        return self.decoder.weights(self._queries(asked, memory), memory)

    def _queries(self, asked: Tensor, memory: Tensor) -> Tensor:
        return self.genes[asked] + memory[:, :1]


class Block(nn.Module):
    """A pre-norm layer in which queries look at a memory, or at themselves; attention, then 4 d units."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of heads {heads}; choose e.g. width {heads * 16}.")
        self.n_heads = heads
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.query, self.both, self.join = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, queries: Tensor, memory: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Return the queries (B, M, d) after they looked at the memory (B, K, d), but not at its ``hidden`` (B, K)."""
        q, k, v = self._project(queries, memory)
        seen = None if hidden is None else ~hidden[:, None, None]  # (B, 1, 1, K)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        queries = queries + self.join(mixed.transpose(1, 2).flatten(2))
        return queries + self.narrow(nn.functional.gelu(self.wide(self.norm3(queries))))

    def weights(self, queries: Tensor, memory: Tensor) -> Tensor:
        """Return the attention weights (B, H, M, K): rows sum to 1."""
        q, k, _ = self._project(queries, memory)
        return (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)

    def _project(self, queries: Tensor, memory: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        k, v = self.both(self.norm2(memory)).chunk(2, -1)
        parts = (self.query(self.norm1(queries)), k, v)
        return tuple(part.unflatten(2, (self.n_heads, -1)).transpose(1, 2) for part in parts)


def _with_summary(hidden: Tensor | None) -> Tensor | None:
    return None if hidden is None else nn.functional.pad(hidden, (1, 0), value=False)


# --- pretraining ----------------------------------------------------------------------------------------------


def restoration_loss(x: dict[str, Tensor], inputs: tuple[int, int], targets: int) -> Callable:
    """Return the loss of restoring genes that are not shown, for ``pretrain``.

    x {part: (n, G)} is in SDs, NaN where missing. A step draws how many genes are shown, from ``inputs`` (least, most)
    with the logarithm uniform, and for each patient which; ``targets`` others are asked for, and once more of the
    summary alone. The loss is the mean squared error of all answers, in SDs squared.
    """

    def loss(network: Restoring, part: str, rows: Tensor, generator: torch.Generator) -> Tensor:
        values = x[part][rows.cpu()].to(rows.device)  # rows are where the network is, see pretrain
        shown, asked = drawn_sets(values, inputs, targets, generator)
        given, wanted = values.gather(1, shown), values.gather(1, asked)
        hidden, known = given.isnan(), ~wanted.isnan()
        memory = network.encode(shown, given.nan_to_num(), hidden if hidden.any() else None)
        told = network.decode(asked, memory, hidden if hidden.any() else None), network.decode(asked, memory[:, :1])
        errors = sum((answer - wanted.nan_to_num()).square() for answer in told) / 2
        return (errors * known).sum() / known.sum().clamp(min=1)

    return loss


def fit_gexbert(
    train: Cohort,
    validation: Cohort,
    *,
    n_genes: int = 1024,
    gene_list: Iterable[str] | None = None,
    inputs: tuple[int, int] = (64, 1024),
    targets: int = 256,
    width: int = 64,
    layers: int = 2,
    heads: int = 4,
    start: str = "axes",
    seed: int = 0,
    **training,
) -> "GexBert":
    """Pretrain on the training part, without labels; genes, means and SDs come from it alone.

    The most variable genes are read (of ``gene_list``, if there is one); ``inputs`` and ``targets`` are those of
    ``restoration_loss``, cut to what there is. ``start`` says where identities start: at the ``principal_axes`` of the
    training part, or "random". ``training`` goes to ``pretrain``; epochs of 0 leave the first weights,
    a floor. CohortError where a patient is in both parts, ValueError for settings that do not fit.
    """
    check_apart(train, validation)
    if start not in STARTS:
        raise ValueError(f"start is one of {', '.join(STARTS)}, not {start!r}.")
    genes = variable_genes(train.expression, n_genes, gene_list)
    scale = _scale(train.expression[genes].to_numpy(float))
    model = GexBert(Restoring(len(genes), width, layers, heads, seed), tuple(genes), *scale, pd.DataFrame())
    x = {
        part: torch.from_numpy(model.standardised(own)) for part, own in (("train", train), ("validation", validation))
    }
    if start == "axes":
        model.network.genes.data.copy_(torch.from_numpy(principal_axes(x["train"].numpy(), width, seed)))
    least, most = (min(count, len(genes) - 1) for count in inputs)
    loss = restoration_loss(x, (least, most), targets)
    if training.get("epochs") == 0:
        return model
    about = {"train": x["train"], "validation": x["validation"], "inputs": [least, most], "targets": targets}
    done = pretrain(model.network, loss, len(train), len(validation), seed=seed, about=about, **training)
    model.network.to("cpu").eval()
    model.history = done.history
    return model


def principal_axes(x: np.ndarray, width: int, seed: int) -> np.ndarray:
    """Return a vector for each gene of x (n, G), in SDs, (G, width), SD 1: genes that go together are near.

    The first principal axes times the root of their singular values, turned at random so that no column is special.
    Missing values count as the mean; with fewer axes than columns the others are 0 before the turn.
    """
    _, singular, axes = np.linalg.svd(np.nan_to_num(x).astype(float), full_matrices=False)
    vectors = np.zeros((x.shape[1], width))
    vectors[:, : len(axes)] = (axes.T * np.sqrt(singular))[:, :width]
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(width, width)))[0]
    return (vectors / vectors.std() @ turn).astype(np.float32)


def _scale(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and SD of the genes (n, G), missing values aside; an SD of 0 becomes 1."""
    spread = np.nanstd(values, 0)
    return np.nanmean(values, 0), np.where(spread > 0, spread, 1.0)


# --- the model ------------------------------------------------------------------------------------------------


@dataclass
class GexBert:
    """A network with the genes, means and SDs (G,) that it was trained behind; it takes any cohort in that unit.

    history: a row per epoch and part, as ``pretrain`` returns it; empty where nothing was trained.
    """

    network: Restoring
    genes: tuple[str, ...]
    mean: np.ndarray
    spread: np.ndarray
    history: pd.DataFrame

    def restore(self, cohort: Cohort, genes: Iterable[str] | None = None) -> pd.DataFrame:
        """Return expression (n, M) of these genes (all that the model knows) as it follows from the cohort's others.

        A gene that the cohort has is shown where it is asked for, too: its value comes back as it is, and a missing
        one restored. To see how well a gene would be restored, take it out first. CohortError for a gene that the
        model does not know, and for a cohort without any that it does.
        """
        names = list(self.genes if genes is None else genes)
        asked = self._codes(names)
        x = self.standardised(cohort)
        told = self.impute(x, asked)
        values = np.where(np.isnan(x[:, asked]), told, x[:, asked]) * self.spread[asked] + self.mean[asked]
        return pd.DataFrame(values, cohort.samples, names)

    def embed(self, cohort: Cohort) -> pd.DataFrame:
        """Return the summary token of each sample, (n, d), made of the genes that it has; CohortError without any."""
        found = self._run(self.standardised(cohort), lambda memory, hidden: memory[:, 0])
        return pd.DataFrame(found, cohort.samples, [f"summary{axis}" for axis in range(found.shape[1])])

    def impute(self, x: np.ndarray, asked: Iterable[int] | None = None) -> np.ndarray:
        """Return the values (n, M) of asked gene codes (all) told from x (n, G), both in SDs, x NaN where not shown."""
        codes = torch.as_tensor(np.arange(len(self.genes)) if asked is None else np.asarray(asked, int))
        return self._run(
            np.asarray(x, np.float32),
            lambda memory, hidden: self.network.decode(codes.expand(len(memory), -1), memory, hidden),
        )

    def standardised(self, cohort: Cohort) -> np.ndarray:
        """Return (n, G) float32 in SDs of the training part, NaN where the cohort has no value."""
        if not cohort.expression.columns.isin(self.genes).any():
            raise CohortError(
                f"{cohort.name} has none of the {len(self.genes)} genes of this model (first: {self.genes[0]}); "
                "bring its gene names to those of the training cohort."
            )
        values = cohort.expression.reindex(columns=list(self.genes)).to_numpy(float)
        return ((values - self.mean) / self.spread).astype(np.float32)

    def encoder(self, genes: Iterable[str]) -> "Encoder":
        """Return a copy of the encoder for these genes, in this order; CohortError for one that is not known."""
        network = Restoring(**self.network.settings)
        network.load_state_dict(self.network.state_dict())
        return Encoder(network, self._codes(list(genes)))

    def save(self, path: str | Path) -> None:
        """Write network, genes and scale to one safetensors file, whole or not at all; OSError if it cannot be."""
        tensors = {f"network.{key}": value for key, value in self.network.state_dict().items()}
        tensors |= {f"scale.{key}": torch.from_numpy(getattr(self, key)) for key in ("mean", "spread")}
        about = {"settings": self.network.settings, "genes": list(self.genes), "history": self.history.to_dict("list")}
        write(path, MODEL, tensors, about)

    def _codes(self, names: list[str]) -> np.ndarray:
        codes = pd.Index(self.genes).get_indexer(names)
        if (codes < 0).any():
            unknown = [name for name, code in zip(names, codes, strict=True) if code < 0]
            raise CohortError(
                f"This model does not know {len(unknown)} of the {len(names)} genes (first: {unknown[0]!r}); it was "
                f"trained on {len(self.genes)}, among them {self.genes[0]!r}."
            )
        return codes

    @torch.no_grad()
    def _run(self, x: np.ndarray, answer: Callable[[Tensor, Tensor | None], Tensor]) -> np.ndarray:
        """Encode what is there of x (n, G), some patients at a time, and return their answers as float64."""
        self.network.eval()
        size = max(1, TOKENS_AT_ONCE // x.shape[1])
        shown = (observed_first(piece) for piece in torch.from_numpy(x).split(size))
        found = [answer(self.network.encode(genes, values, hidden), hidden) for genes, values, hidden in shown]
        return torch.cat(found).double().numpy()


def load_gexbert(path: str | Path) -> GexBert:
    """Read back what ``GexBert.save`` wrote; ValueError for any other file."""
    tensors, about = read(path, MODEL)
    found = parts(tensors)
    network = Restoring(**about["settings"])
    network.load_state_dict(found["network"])
    network.eval()
    scale = (found["scale"][name].numpy() for name in ("mean", "spread"))
    return GexBert(network, tuple(about["genes"]), *scale, pd.DataFrame(about["history"]))


class Encoder(nn.Module):
    """The summary of some of the genes, as a body for TxT's heads (txtlib/pretrain/transfer.py); ``features`` is d."""

    def __init__(self, network: Restoring, codes: np.ndarray):
        super().__init__()
        # the decoder is left behind: parameters that no task uses would have no gradient
        self.network, network.decoder, network.out = network, nn.Identity(), nn.Identity()
        self.register_buffer("codes", torch.as_tensor(codes))
        self.features = network.settings["width"]

    def forward(self, x: Tensor) -> Tensor:
        """Map values (B, M), in SDs, of the genes of this encoder to (B, d)."""
        return self.network.encode(self.codes.expand(len(x), -1), x)[:, 0]

    encode = forward
