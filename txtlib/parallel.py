"""One training run on several processes, by PyTorch's own launcher: ``torchrun --nproc-per-node 2 script.py``.

Each process takes some patients of a batch through the encoder. Everything else is done by all of them alike, so
that batch norm, the projections between tasks and the choice of the epoch see the whole batch, as in one process. For
that they must be of one kind: same processor, same number of threads. A checkpoint lies on a disk that all of them
see; the first one writes it, and it is what survives a Ctrl-C.
"""

import atexit
from contextlib import contextmanager

import torch
from torch import Tensor
from torch import distributed as dist


def join(device: torch.device) -> None:
    """Meet the other processes, if torchrun started this one."""
    if dist.is_available() and dist.is_torchelastic_launched() and not dist.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        atexit.register(dist.destroy_process_group)  # or the last to leave may find the others gone, and abort


def place() -> tuple[int, int]:
    """Return the number of this process and how many there are: (0, 1) for one alone."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)


def own_rows(n: int) -> slice:
    """Return the rows of n that are this process's to work on, maybe none; all processes' together are 0..n-1."""
    rank, world = place()
    return slice(n * rank // world, n * (rank + 1) // world)


def added(own: Tensor) -> Tensor:
    """Return the sum of all processes' tensors."""
    if place()[1] > 1:
        dist.all_reduce(own)
    return own


def gathered(own: Tensor, n: int) -> Tensor:
    """Return all n rows, of which each process has brought its own."""
    if place()[1] == 1:
        return own
    every = own.new_zeros(n, *own.shape[1:])
    every[own_rows(n)] = own
    return added(every)


def of_the_first(value: Tensor) -> Tensor:
    """Return the first process's tensor, so that all decide by the same numbers."""
    if place()[1] > 1:
        dist.broadcast(value, 0)
    return value


def agree(value: dict) -> None:
    """Raise ValueError if the processes do not all come with the same value."""
    every = [None] * place()[1]
    if len(every) > 1:
        dist.all_gather_object(every, value)
    differing = sorted({key for other in every if other for key in other if other[key] != every[0].get(key)})
    if differing:
        raise ValueError(
            f"The processes of torchrun differ in {', '.join(differing)}: start them with the same arguments and data."
        )


@contextmanager
def own_randomness():
    """Draw differently in each process, and go on alike afterwards."""
    rank, world = place()
    if world == 1:
        yield
        return
    seed = int(torch.randint(2**31, ()))
    with torch.random.fork_rng():
        torch.manual_seed(seed + rank)
        yield
