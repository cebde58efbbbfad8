"""A TifBERT-like model: masked gene modelling on sentences of ranked genes, and an embedding of each sample.

Rebuilt from text, not from the code: Hosseini and Sharma, bioRxiv 2026, as second hand describes it. Tokens are gene
identities; expression only orders them (txtlib/pretrain/ranking.py). A BERT reads windows of the sentence: learned
positions, post-norm, GELU, a decoder tied to the gene vectors; 15 % of the genes are masked (Devlin et al. 2019,
10.18653/v1/N19-1423). Theirs: 12 layers of width 768, windows of 512 genes out of some 10,000.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from txtlib.checkpoint import parts, read, write
from txtlib.cohort import Cohort
from txtlib.pretrain.apart import check_apart
from txtlib.pretrain.loop import pretrain
from txtlib.pretrain.ranking import Ranking, complete_genes, fit_ranking
from txtlib.pretrain.versions import fit_versions

MODEL = "TifBERT-like model"  # the kind of file that TifBert.save writes
SHARE = 0.15  # of the genes that are masked
MASK, OTHER = 0.8, 0.1  # of these: a mask; another gene, drawn at random; the rest stay and are asked for all the same
IGNORED = -100  # PyTorch's code of a token that is not asked for
SD = 0.02  # of the first weights, as BERT's
TOKENS_AT_ONCE = 64_000  # windows x genes per forward pass where no gradient is needed
POOLS = ("windows", "mean")


class MaskedGenes(nn.Module):
    """A BERT over windows of gene tokens (B, W), codes 0 .. G - 1, and G for a mask."""

    def __init__(
        self, n_genes: int, window: int, width: int = 64, layers: int = 2, heads: int = 4, dropout: float = 0.1
    ):
        super().__init__()
        self.settings = dict(n_genes=n_genes, window=window, width=width, layers=layers, heads=heads, dropout=dropout)
        self.genes, self.places = nn.Embedding(n_genes + 1, width), nn.Embedding(window, width)
        self.first = nn.LayerNorm(width)
        block = dict(dim_feedforward=4 * width, dropout=dropout, activation="gelu", batch_first=True)
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(width, heads, **block) for _ in range(layers))
        self.decoder = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width))
        self.bias = nn.Parameter(torch.zeros(n_genes))
        for embedding in (self.genes, self.places):
            nn.init.normal_(embedding.weight, std=SD)

    def encode(self, tokens: Tensor) -> Tensor:
        """Return the vectors (B, W, width) of the tokens (B, W) in their context."""
        hidden = self.first(self.genes(tokens) + self.places.weight[: tokens.shape[1]])
        for block in self.blocks:
            hidden = block(hidden)
        return hidden

    def forward(self, tokens: Tensor) -> Tensor:
        """Return a logit for each gene at each token, (B, W, G)."""
        return self.decoder(self.encode(tokens)) @ self.genes.weight[:-1].T + self.bias


# --- windows and masks ----------------------------------------------------------------------------------------


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """Return where windows start, ``stride`` apart; the last one ends with the sentence.

    ValueError for a window that is longer than the sentence, or a stride that would leave genes out.
    """
    if not 1 <= stride <= window <= length:
        raise ValueError(
            f"A window of {window} genes with a stride of {stride} does not fit a sentence of {length}: give a stride "
            "of 1 up to the window, and a window of up to the sentence."
        )
    return sorted({*range(0, length - window + 1, stride), length - window})


def masked(tokens: Tensor, n_genes: int, generator: torch.Generator, share: float = SHARE) -> tuple[Tensor, Tensor]:
    """Return what the network reads and what it is asked, (B, W) each; IGNORED where nothing is asked.

    ``share`` of the tokens are asked for, at least one a row: of these 80 % read as a mask, 10 % as another gene.
    """
    chance = torch.rand(tokens.shape, generator=generator)
    asked = chance <= chance.quantile(share, dim=1, interpolation="lower", keepdim=True)
    fate = torch.rand(tokens.shape, generator=generator)
    others = torch.randint(n_genes, tokens.shape, generator=generator)
    shown = torch.where(asked & (fate < MASK), torch.full_like(tokens, n_genes), tokens)
    shown = torch.where(asked & (fate >= MASK) & (fate < MASK + OTHER), others, shown)
    return shown, torch.where(asked, tokens, torch.full_like(tokens, IGNORED))


def masked_gene_loss(sentences: dict[str, np.ndarray], n_genes: int, window: int, stride: int) -> Callable:
    """Return the loss of masked gene modelling on sentences {part: (V, n, G)} of V versions, for ``pretrain``.

    Each patient of a step is read in a version, a window and a mask that the generator draws.
    """
    tokens = {part: torch.from_numpy(found) for part, found in sentences.items()}
    starts = torch.tensor(window_starts(sentences["train"].shape[2], window, stride))

    def loss(network: nn.Module, part: str, rows: Tensor, generator: torch.Generator) -> Tensor:
        rows = rows.cpu()
        version = torch.randint(len(tokens[part]), rows.shape, generator=generator)
        start = starts[torch.randint(len(starts), rows.shape, generator=generator)]
        read = tokens[part][version[:, None], rows[:, None], start[:, None] + torch.arange(window)]
        shown, asked = masked(read, n_genes, generator)
        return _cross_entropy(network, shown, asked)

    return loss


def _cross_entropy(network: nn.Module, shown: Tensor, asked: Tensor) -> Tensor:
    device = next(network.parameters()).device
    hidden = network.encode(shown.to(device))[(asked != IGNORED).to(device)]  # decoded only where asked
    logits = network.decoder(hidden) @ network.genes.weight[:-1].T + network.bias
    return nn.functional.cross_entropy(logits.float(), asked[asked != IGNORED].to(device))


def unseen_floor(n_genes: int, window: int, share: float = SHARE) -> float:
    """Return the loss of a guess of any gene alike that the window does not show, for a share of it that is asked for.

    No gene stands in a sentence twice, so this much can be had in random order too.
    """
    return float(np.log(max(1, n_genes - round((1 - share) * window))))


def place_floor(sentences: dict[str, np.ndarray], n_genes: int) -> float:
    """Return the validation loss of a guess from the place in the sentence alone, {part: (V, n, G)}.

    The share of training sentences with each gene at each place, with one more sentence that has all genes alike.
    """
    train, validation = (sentences[part].reshape(-1, n_genes) for part in ("train", "validation"))
    counts = np.zeros((n_genes, n_genes))
    places = np.arange(n_genes)
    np.add.at(counts, (np.broadcast_to(places, train.shape), train), 1)
    shares = (counts + 1 / n_genes) / (len(train) + 1)
    return float(-np.log(shares[np.broadcast_to(places, validation.shape), validation]).mean())


# --- the model ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TifBert:
    """A network with the ranking that it was trained behind; ``embed`` takes any cohort in the unit of training.

    history: a row per epoch and part with its loss, as ``pretrain`` returns it; floor: see ``place_floor``.
    """

    network: MaskedGenes
    ranking: Ranking
    stride: int
    history: pd.DataFrame
    floor: float

    @property
    def window(self) -> int:
        """The number of genes that the network reads at once."""
        return self.network.settings["window"]

    def embed(self, cohort: Cohort, pool: str = "windows") -> pd.DataFrame:
        """Return a vector per sample, without any training: (n, windows x width), or (n, width) for pool "mean".

        The mean vector of a window's genes, the windows side by side or averaged. CohortError for a sample without
        any of the genes, ValueError for another pool.
        """
        if pool not in POOLS:
            raise ValueError(f"pool is one of {', '.join(POOLS)}, not {pool!r}.")
        starts = window_starts(len(self.ranking.genes), self.window, self.stride)
        windows = self.ranking.sentences(cohort)[:, np.add.outer(starts, np.arange(self.window))]  # (n, S, W)
        found = _encoded(self.network, torch.from_numpy(windows))
        found = found.mean(1, keepdims=True) if pool == "mean" else found
        names = [f"w{window}_{axis}" for window in range(found.shape[1]) for axis in range(found.shape[2])]
        return pd.DataFrame(found.reshape(len(cohort), len(names)), cohort.samples, names)

    def reweighted(self, train: Cohort) -> "TifBert":
        """Return the same frozen network behind weights of the training part in another unit."""
        return replace(self, ranking=self.ranking.reweighted(train))

    def save(self, path: str | Path) -> None:
        """Write network and ranking to one safetensors file, whole or not at all; OSError if it cannot be."""
        arrays, fields = self.ranking.state()
        tensors = {f"network.{key}": value for key, value in self.network.state_dict().items()}
        tensors |= {f"ranking.{key}": torch.from_numpy(value) for key, value in arrays.items()}
        about = {"settings": self.network.settings, "ranking": fields, "stride": self.stride, "floor": self.floor}
        write(path, MODEL, tensors, about | {"history": self.history.to_dict("list")})


def load_tifbert(path: str | Path) -> TifBert:
    """Read back what ``TifBert.save`` wrote; ValueError for any other file."""
    tensors, about = read(path, MODEL)
    found = parts(tensors)
    network = MaskedGenes(**about["settings"])
    network.load_state_dict(found["network"])
    network.eval()
    ranking = Ranking.from_state({name: value.numpy() for name, value in found["ranking"].items()}, about["ranking"])
    return TifBert(network, ranking, about["stride"], pd.DataFrame(about["history"]), about["floor"])


def fit_tifbert(
    train: Cohort,
    validation: Cohort,
    *,
    n_genes: int = 1024,
    gene_list: Iterable[str] | None = None,
    order: str = "entropy",
    versions: Iterable[str] = ("log",),
    window: int = 128,
    stride: int = 64,
    width: int = 64,
    layers: int = 2,
    heads: int = 4,
    dropout: float = 0.1,
    seed: int = 0,
    **training,
) -> TifBert:
    """Pretrain on the training part, without labels; genes, weights and levels come from it alone.

    The most variable genes without a missing value are read, ordered as ``ranking.WEIGHTS`` says. ``versions``
    (txtlib/pretrain/versions.py) are the units in which each patient is read in turn, with that unit's own weights; the
    model keeps those of the first. ``training`` goes to ``pretrain``; epochs of 0 leave the first weights, a floor.
    CohortError where a patient is in both parts, ValueError for settings that do not fit.
    """
    check_apart(train, validation)
    genes = complete_genes(train, n_genes, gene_list)
    rankings, found = _read(train, validation, genes, order, list(versions), seed)
    window, stride = min(window, len(genes)), min(stride, window, len(genes))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = MaskedGenes(len(genes), window, width, layers, heads, dropout)
    loss = masked_gene_loss(found, len(genes), window, stride)
    history = _pretrained(network, loss, found, seed, training)
    network.to("cpu").eval()
    return TifBert(network, rankings[0], stride, history, place_floor(found, len(genes)))


def _read(train: Cohort, validation: Cohort, genes: list[str], order: str, versions: list[str], seed: int):
    """Return a ranking per version, and the sentences (V, n, G) of both parts."""
    units = fit_versions(train) if versions != ["log"] else None
    seen = [[units.apply(part, name) if units else part for part in (train, validation)] for name in versions]
    rankings = [fit_ranking(own, genes, order, seed) for own, _ in seen]
    pairs = list(zip(rankings, seen, strict=True))
    named = enumerate(("train", "validation"))
    return rankings, {part: np.stack([r.sentences(own[k]) for r, own in pairs]) for k, part in named}


def _pretrained(
    network: MaskedGenes, loss: Callable, sentences: dict[str, np.ndarray], seed: int, training: dict
) -> pd.DataFrame:
    """Train the network in place, unless for 0 epochs, and return the history."""
    if training.get("epochs") == 0:
        return pd.DataFrame()
    sizes = [sentences[part].shape[1] for part in ("train", "validation")]
    about = {part: torch.from_numpy(found) for part, found in sentences.items()}  # tells a checkpoint's run from others
    return pretrain(network, loss, *sizes, seed=seed, about=about, **training).history


@torch.no_grad()
def _encoded(network: MaskedGenes, windows: Tensor) -> np.ndarray:
    """Return the mean vector (n, S, width) of each window (n, S, W) of gene codes."""
    network.eval()
    pieces = windows.flatten(0, 1).split(max(1, TOKENS_AT_ONCE // windows.shape[2]))
    found = torch.cat([network.encode(piece).mean(1) for piece in pieces])
    return found.unflatten(0, windows.shape[:2]).double().numpy()
