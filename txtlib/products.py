"""Matrix products with gradients for many tasks at once: the results of plain PyTorch, sooner and in less memory.

A training step asks for the gradient of each task through one and the same encoder. Under ``torch.func.vmap``
the backward passes below get the gradients of all T tasks together: what does not depend on the task, above all
the attention weights, is then made once instead of T times.
"""

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ENTRIES = 250_000  # attention weights in memory at a time: enough for full speed, few enough for the cache
NARROW = 24  # columns below which a batch of products is quicker the other way round


def product(a: Tensor, b: Tensor) -> Tensor:
    """Return a (M, K) times b (K, N), or B such pairs at once, (B, M, K) and (B, K, N).

    One float32 pair on a CPU goes to oneDNN, which is up to twice as fast as the library behind ``@``.
    """
    if a.dim() == 3 and len(a) == 1:
        return product(a[0], b[0])[None]
    if a.dim() == 3 and b.shape[2] < NARROW:
        return (b.mT @ a.mT).mT
    if a.dim() == 2 and _on_onednn(a):
        return torch.ops.mkldnn._linear_pointwise(a, b.mT, None, "none", [], "")
    return a @ b


def _on_onednn(a: Tensor) -> bool:
    return a.dtype == torch.float32 and a.device.type == "cpu" and hasattr(torch.ops.mkldnn, "_linear_pointwise")


class Linear(nn.Linear):
    """A map without bias, (..., K) to (..., M)."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (..., K) to (..., M)."""
        if x.device.type != "cpu":
            return super().forward(x)
        return _Linear.apply(*_autocast(x, self.weight))


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return softmax(q k^T) v, (B, H, G, e), for q and k (B, H, G, w) and v (B, H, G, e), e <= w.

    Memory grows with G, not with G x G: PyTorch's fused kernel goes forward, and backward the weights are made
    again for a block of queries at a time.
    """
    if q.device.type != "cpu":
        return _fused(q, k, v, multiple=8)  # the fused kernels of a GPU want it
    return _Attend.apply(*_autocast(q, k, v))


def _fused(q: Tensor, k: Tensor, v: Tensor, multiple: int = 1) -> Tensor:
    width = -(-q.shape[-1] // multiple) * multiple  # one width for all three; columns of zeros change nothing
    q, k, padded = (F.pad(each, (0, width - each.shape[-1])) for each in (q, k, v))
    return F.scaled_dot_product_attention(q, k, padded, scale=1.0)[..., : v.shape[-1]]


def _autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    if not torch.is_autocast_enabled("cpu"):
        return tensors
    return tuple(each.to(torch.get_autocast_dtype("cpu")) for each in tensors)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(x, weight):
        return product(x.flatten(0, -2), weight.T).unflatten(0, x.shape[:-1])

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, grad):
        return _LinearGradients.apply(*ctx.saved_tensors, grad)


class _LinearGradients(torch.autograd.Function):
    @staticmethod
    def forward(x, weight, grad):
        return tuple(each[0] for each in linear_gradients(x, weight, grad[None]))

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def vmap(info, dims, x, weight, grad):
        return linear_gradients(x, weight, grad.movedim(dims[2], 0)), (0, 0)


def linear_gradients(x: Tensor, weight: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of x (..., K) and weight (M, K), (T, ..., K) and (T, M, K), from T of the output."""
    rows, grads = x.flatten(0, -2), grad.flatten(1, -2)  # (N, K), (T, N, M)
    dx = product(grads.flatten(0, 1), weight).view(len(grad), *x.shape)
    columns = rows.T.contiguous()  # once for all tasks
    return dx, torch.stack([product(columns, each) for each in grads]).mT


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(q, k, v):
        return _fused(q, k, v)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs, output)

    @staticmethod
    def backward(ctx, grad):
        return _AttendGradients.apply(*ctx.saved_tensors, grad)


class _AttendGradients(torch.autograd.Function):
    @staticmethod
    def forward(q, k, v, out, grad):
        return tuple(each[0] for each in attend_gradients(q, k, v, out, grad[None]))

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def vmap(info, dims, q, k, v, out, grad):
        return attend_gradients(q, k, v, out, grad.movedim(dims[4], 0)), (0, 0, 0)


def attend_gradients(q: Tensor, k: Tensor, v: Tensor, out: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of q, k and v, (T, B, H, G, ...), from T of the output: grad (T, B, H, G, e)."""
    patients, heads, genes = v.shape[:3]
    grad, extra = _minus_mean(grad, out)
    grad = grad.permute(1, 2, 3, 0, 4).contiguous()  # (B, H, G, T, e + extra): one product serves all tasks
    given = [each.contiguous() for each in (q, k, F.pad(v, (0, extra), value=1.0))]
    found = tuple(  # in memory genes come before heads, as the projections want them
        each.new_empty(grad.shape[3], patients, genes, heads, each.shape[-1]).transpose(2, 3) for each in (q, k, v)
    )
    for at in _blocks(patients, heads, genes**2 * grad.shape[3]):
        block = _some_heads(*(each[at].flatten(0, 1) for each in (*given, grad)))
        for each, gradient in zip(found, block, strict=True):
            into = each[:, *at]  # (T, patients, heads, G, ...)
            into.copy_(gradient[..., : into.shape[-1]].unflatten(1, into.shape[1:3]))
    return found


def _blocks(patients: int, heads: int, scores: int) -> Iterator[tuple[slice, slice]]:
    """Yield patients and heads to work on together: some whole patients if they are small, else one head of one.

    scores counts the gradients that one head makes.
    """
    together = 2 * ENTRIES // (scores * heads)
    steps = (together, heads) if together else (1, 1)
    for start in itertools.product(range(0, patients, steps[0]), range(0, heads, steps[1])):
        yield tuple(slice(first, first + step) for first, step in zip(start, steps, strict=True))


def _minus_mean(grad: Tensor, out: Tensor) -> tuple[Tensor, int]:
    """Append -m to grad, and say in how many columns: m (T, B, H, G) is each query's mean of grad v^T over keys.

    The scores' gradient is weights x (grad v^T - m): with ones beside v, one product gives the bracket. A
    bfloat16 m takes two columns, itself and what rounding lost, because the difference can be much smaller.
    """
    exact = torch.float32 if grad.dtype == torch.bfloat16 else grad.dtype
    mean = -(grad.to(exact) * out.to(exact)).sum(-1, keepdim=True)
    columns = [mean.to(grad.dtype)]
    if grad.dtype != exact:
        columns.append((mean - columns[0]).to(grad.dtype))
    return torch.cat([grad, *columns], -1), len(columns)


def _some_heads(q: Tensor, k: Tensor, v: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of q, k (T, N, G, w) and v (T, N, G, e + extra) in N heads; grad (N, G, T, e + extra)."""
    n, genes, tasks, _ = grad.shape
    exact = torch.promote_types(q.dtype, torch.float32)
    dq, rows, keys = [], max(64, ENTRIES // genes), k.to(exact).mT
    dk, dv = (torch.zeros(n, *size, dtype=exact) for size in ((q.shape[2], tasks * genes), (tasks * v.shape[2], genes)))
    for queries, grads in zip(q.split(rows, 1), grad.split(rows, 1), strict=True):  # (N, R, w), (N, R, T, e + extra)
        weights = product(queries.to(exact), keys).softmax(-1).to(q.dtype)  # (N, R, G)
        scores = product(grads.flatten(1, 2), v.mT).unflatten(1, (-1, tasks)).mul_(weights[:, :, None])  # (N, R, T, G)
        dq.append(product(scores.flatten(1, 2), k).unflatten(1, (-1, tasks)))  # (N, R, T, w)
        dk += product(queries.mT, scores.flatten(2))
        dv += product(grads.flatten(2).mT, weights)
    dk, dv = dk.unflatten(2, (tasks, genes)), dv.unflatten(1, (tasks, -1))  # (N, w, T, G), (N, T, e + extra, G)
    return torch.cat(dq, 1).permute(2, 0, 1, 3), dk.permute(2, 0, 3, 1), dv.permute(1, 0, 3, 2)
