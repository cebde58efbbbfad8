"""Masked losses, one per kind of task. A patient without a label adds nothing to that task's loss."""

import torch
from torch import Tensor
from torch.nn import functional as F


def mtlr_scores(logits: Tensor) -> Tensor:
    """Map logits psi (B, K) to the scores of the K + 1 time cells: a_k = sum of psi_l over l >= k, a_{K+1} = 0."""
    return F.pad(logits.flip(-1).cumsum(-1).flip(-1), (0, 1))  # (B, K + 1)


def mtlr_nll(logits: Tensor, cell: Tensor, event: Tensor) -> Tensor:
    """Return the mean negative log-likelihood of N-MTLR (Yu 2011; Fotso 2018, arXiv:1801.05512), a scalar.

    logits (B, K); cell (B,) in 0..K counts the right-open time cells, K being the open one; event (B,) is true
    where the event was seen. An event adds -log P(cell). A censored patient adds -log P(cell or later): the own
    cell counts, because the patient was alive at an unknown point of it. An empty batch gives 0.
    """
    scores = mtlr_scores(logits)  # (B, K + 1)
    cells = torch.arange(scores.shape[1], device=scores.device)  # (K + 1,)
    later = torch.where(event[:, None].bool(), cells == cell[:, None], cells >= cell[:, None])  # (B, K + 1)
    possible = scores.masked_fill(~later, -torch.inf).logsumexp(1)
    return _mean(scores.logsumexp(1) - possible)


def task_loss(kind: str, output: Tensor, label: tuple[Tensor, ...]) -> Tensor:
    """Return the mean loss over the patients that have a label, a scalar; 0 if none has.

    regression: output (B, 1), label (target (B,),), squared error; classification: output (B, C), label
    (code (B,),), cross-entropy; survival: output (B, K), label (cell (B,), event (B,)), N-MTLR.
    """
    if kind == "regression":
        seen = ~label[0].isnan()
        return _mean((output[seen, 0] - label[0][seen]).square())
    seen = label[0] >= 0  # a missing class or time cell has the code -1
    if kind == "classification":
        return _mean(F.cross_entropy(output[seen], label[0][seen], reduction="none"))
    return mtlr_nll(output[seen], label[0][seen], label[1][seen])


def _mean(losses: Tensor) -> Tensor:
    return losses.sum() / max(len(losses), 1)  # an empty batch has a gradient too: zero
