"""Batch norms that know the training part as the weights see it now, before anybody is judged by them.

In training a batch norm keeps running means, which lag behind weights that move. With a few steps an epoch, as on a
few hundred patients, and with features that hardly differ between patients, as those of a TxT that has just begun to
learn, the lag is many SDs: the network answers validation patients otherwise than it answers training patients, and
the wrong epoch is kept. So means and variances are taken afresh, as Wu and Johnson propose (2021, arXiv:2105.07576).
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


@torch.no_grad()
def renew(network: nn.Module, pieces: Iterable[Tensor]) -> None:
    """Give each batch norm of a network the mean and variance of the ``pieces`` (B, G), and switch dropout off.

    Each piece weighs the same, so they should be of about one size, two patients or more, and drawn at random; in one
    piece the numbers are exact. A network without such norms is left as it is but for dropout.
    """
    network.eval()
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over all pieces
        norm.train()
    for piece in pieces if norms else ():
        network(piece)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
