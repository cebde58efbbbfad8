"""T-GEM: a transformer whose state is one number per gene.

After Zhang et al. 2022 (T-GEM, Cancers 14:4763), in our own words and code. A gene's query, key and value in a head are
its state times a learned number each, so the logit of two genes is a product of two numbers. A gene's weight on itself
is taken out, and the others are left as they are. Layers have no feed-forward part and share one LayerNorm.

What is ours: genes, targets, classes and time grid are fitted on the training part. The original only classifies; here
a linear layer on the last state answers each task, one task or many. Training starts at a learning rate of 3e-4, not
1e-4, and ends early on the validation part, where the original takes all of 50 epochs.

What is theirs, and extreme: a layer adds up its heads with weights ``mix`` that start at 0.001. The sum then differs
between genes by 1e-7 (of 1,000 genes) to 1e-5 (of 60), and LayerNorm divides by that: a gain of 100,000 to a million.
So the first steps follow dropout, which decides most of those differences, and in the gradient that tasks share the
few numbers of ``mix`` outweigh all others, also where PCGrad compares tasks.
"""

from functools import partial
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from txtlib.peers.networks import GeneSets, NetworkMethod, Shared
from txtlib.preprocess import Preprocessor

SPACE = {
    "learning_rate": [3e-4, 3e-3, 1e-3, 1e-4],  # the original's comes last: it needs more epochs than others do
    "dropout": [0.3, 0.1, 0.5],
    "batch_size": [16, 32, 64],
    "heads": [5, 3, 1],
}
DEFAULTS = {"scaler": "standard", "learning_rate": 3e-4, "batch_size": 16, "epochs": 100, "patience": 20}
MIX = 0.001  # weight of each head at the start
EPSILON = 1e-6  # added to LayerNorm's SD, not to the variance
SLOPE = 0.1  # of the last activation, below 0
TERMS = {torch.float32: 9, torch.float64: 15}  # of the series of exp from -1/2 to 1/2, to the last bit
FEW = 4  # genes per unit of logit below which a node for each gene costs less than a series
LOWEST = -60.0  # logit below the largest: adds nothing to a sum, and its exponential is still a normal number
AT_ONCE = 10_000  # genes x heads x patients on a CPU: what belongs to them stays in the cache


def tgem(seed: int = 0, gene_sets: GeneSets | None = None, **settings) -> NetworkMethod:
    """Return T-GEM on all tasks, with the settings of a ``NetworkMethod`` and of ``TGem`` (layers, heads, dropout)."""
    return NetworkMethod(_build, seed, gene_sets, **{**DEFAULTS, **settings})


def _build(x, preprocessor: Preprocessor, gene_sets: GeneSets, seed: int, **settings) -> nn.Module:
    n_genes = x.shape[1]
    return Shared(partial(TGem, n_genes, **settings), n_genes, preprocessor.outputs, nn.Linear, seed)


class TGem(nn.Module):
    """The layers that all tasks share. Raises ValueError for fewer than one layer or head."""

    def __init__(self, n_genes: int, layers: int = 3, heads: int = 5, dropout: float = 0.3):
        super().__init__()
        if min(layers, heads) < 1:
            raise ValueError(f"T-GEM: layers and heads are 1 or more, not {layers} and {heads}.")
        self.layers = nn.ModuleList(Attention(n_genes, heads) for _ in range(layers))
        self.norm, self.dropout = Norm(n_genes), nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map expression x (B, G) to the genes' last state, (B, G)."""
        for layer in self.layers:
            x = x + self.norm(self.dropout(layer(x)))
        return F.leaky_relu(x, SLOPE)


class Attention(nn.Module):
    """One layer of H heads: three numbers per gene and head, and a weight per head."""

    def __init__(self, n_genes: int, heads: int):
        super().__init__()
        self.query, self.key, self.value = (
            nn.Parameter(nn.init.xavier_normal_(torch.empty(heads, n_genes))) for _ in range(3)
        )
        self.mix = nn.Parameter(torch.full((heads,), MIX))

    def forward(self, x: Tensor) -> Tensor:
        """Map states x (B, G) to what each gene gathers from the others, (B, G)."""
        q, k, v = (x[:, None] * each for each in (self.query, self.key, self.value))  # (B, H, G)
        return (attend_to_others(q, k, v) * self.mix[:, None]).sum(1)


class Norm(nn.Module):
    """LayerNorm over the genes, with EPSILON beside the SD."""

    def __init__(self, n_genes: int):
        super().__init__()
        self.gain, self.shift = nn.Parameter(torch.ones(n_genes)), nn.Parameter(torch.zeros(n_genes))

    def forward(self, x: Tensor) -> Tensor:
        """Centre and scale x (B, G) within each patient, then scale and shift each gene."""
        spread = x.std(1, correction=0, keepdim=True) + EPSILON
        return (x - x.mean(1, keepdim=True)) / spread * self.gain + self.shift


# --- attention whose logits are products of two numbers -----------------------------------------------------------


def attend_to_others(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return the sum of A_ij v_j over all j but i, where A_ij is the softmax over all j of q_i k_j.

    q, k, v and the result are (B, H, G). Equal to the plain form up to rounding; time and memory grow with G, not
    with G x G, unless logits are large.
    """
    rows = max(1, AT_ONCE // q.shape[-1]) if q.device.type == "cpu" else q[..., 0].numel()
    parts = zip(*(each.flatten(0, 1).split(rows) for each in (q, k, v)), strict=True)
    with torch.autocast(q.device.type, enabled=False):
        return torch.cat([_Attend.apply(*part) for part in parts]).view_as(q)


class _Attend(torch.autograd.Function):
    """The three gradients are sums over the same exponentials as the result, so all are products with one matrix."""

    @staticmethod
    def forward(ctx, q, k, v):
        k = k - (k.amax(1, keepdim=True) + k.amin(1, keepdim=True)) / 2  # changes no softmax, and makes logits small
        matrix = Exponentials(q, k)
        total, values, keys, both = matrix.rows(torch.stack([torch.ones_like(v), v, k, k * v], 1)).unbind(1)
        out = (values - matrix.own * v) / total
        slope = (both - matrix.own * k * v - out * keys) / total  # of out_i along q_i
        ctx.save_for_backward(q, v, out, slope, total)
        ctx.matrix = matrix
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        q, v, out, slope, total = ctx.saved_tensors
        share, own = grad / total, ctx.matrix.own
        dv, asked, mean = ctx.matrix.columns(torch.stack([share, share * q, share * q * out], 1)).unbind(1)
        return grad * slope, (asked - own * share * q) * v - mean, dv - own * share


class Exponentials:
    """The matrices exp(q_i k_j), each row up to a factor, for N pairs of q and k (N, G), by their products only.

    Let u be k scaled to at most 1 in size, t be q times that scale, and c be t rounded: exp(t u) is exp(c u) times
    exp((t - c) u). The first is needed at few whole numbers c, the nodes; the second is a short power series. A row's
    factor is exp(-|c|), which keeps all numbers below 2. ``own`` (N, G) is the diagonal.
    """

    def __init__(self, q: Tensor, k: Tensor):
        reach = k.abs().amax(1, keepdim=True).clamp(min=torch.finfo(k.dtype).tiny)
        u, t = k / reach, q * reach
        nodes, nearest, self.chosen, terms = _nodes(t)
        self.offset = t - nearest  # (N, G)
        self.own = (t * u - nearest.abs()).exp()  # (N, G)
        self.at_nodes = (nodes[..., None] * u[:, None]).sub_(nodes.abs()[..., None]).clamp_(min=LOWEST).exp_()
        self.powers = torch.stack([*accumulate([torch.ones_like(u), *[u] * (terms - 1)], torch.mul)], 1)  # (N, M, G)

    def rows(self, a: Tensor) -> Tensor:
        """Return the sums over j of E_ij a_j, (N, S, G), for S vectors a (N, S, G)."""
        moments = (a[:, :, None] * self.powers[:, None]).flatten(1, 2) @ self.at_nodes.mT  # (N, S M, C)
        terms = (moments @ self.chosen.mT).unflatten(1, (a.shape[1], -1)).unbind(2)  # M of (N, S, G)
        found = terms[-1]
        for m in range(len(terms) - 1, 0, -1):  # Horner's scheme for the sum of terms_m offset^m / m!
            found = torch.addcmul(terms[m - 1], found, self.offset[:, None] / m)
        return found

    def columns(self, b: Tensor) -> Tensor:
        """Return the sums over i of E_ij b_i, (N, S, G), for S vectors b (N, S, G)."""
        factors = [self.offset[:, None] / m for m in range(1, self.powers.shape[1])]
        terms = torch.stack([*accumulate([b, *factors], torch.mul)], 2)  # b offset^m / m!, (N, S, M, G)
        moments = terms.flatten(1, 2) @ self.chosen  # (N, S M, C)
        found = (moments @ self.at_nodes).unflatten(1, (b.shape[1], -1))  # (N, S, M, G)
        return (found * self.powers[:, None]).sum(2)


def _nodes(t: Tensor) -> tuple[Tensor, Tensor, Tensor, int]:
    """Return nodes (N, C), the nearest to each t, (N, G), which it is, (N, G, C) of 0 and 1, and terms for the rest."""
    genes, largest = t.shape[1], t.abs().max()
    if not largest * FEW < genes:  # true of NaN too
        return t, t, torch.eye(genes, dtype=t.dtype, device=t.device).expand(len(t), -1, -1), 1
    nearest, last = t.round(), int(largest.round())
    chosen = t.new_zeros(*t.shape, 2 * last + 1).scatter_(2, (nearest + last).long()[..., None], 1.0)
    nodes = torch.arange(-last, last + 1, dtype=t.dtype, device=t.device)
    return nodes.expand(len(t), -1), nearest, chosen, TERMS[t.dtype]
