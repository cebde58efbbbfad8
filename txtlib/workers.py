"""Where work is done: in processes of this machine, or on a Dask cluster; joblib hands the items out.

A process that dies (killed, out of memory, a crash in C) takes along only the item that it was working on: that one
comes back as ``Died``, and all others go on.
"""

import asyncio
import os
import signal
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import Pipe, get_context, parent_process
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from textwrap import shorten
from threading import Thread
from typing import Any, NamedTuple

from joblib import Parallel, cpu_count, delayed, parallel_config

THREADS = tuple(f"{library}_NUM_THREADS" for library in ("OMP", "OPENBLAS", "MKL", "NUMBA", "NUMEXPR"))

Work = Callable[[Any, Any], Any]  # of what all items share, and of one item
Each = Callable[[Iterable, bool], Generator]  # items, and whether to take them one at a time -> outcomes as they come


class Died(NamedTuple):
    """The outcome of an item whose process died, with what is known of the reason."""

    item: Any
    reason: str


@contextmanager
def open_workers(
    work: Work, shared: Any, workers: int | None = None, threads: int | None = None, cluster=None
) -> Iterator[Each]:
    """Yield a function that does ``work(shared, item)`` for many items and yields the outcomes as they come.

    Without a ``cluster``: in ``workers`` processes (by default one per core) of ``threads`` threads each (by default
    the cores are shared out, unless OMP_NUM_THREADS and the like say otherwise). ``cluster`` is a Dask client, or
    the address of a scheduler. ``shared`` goes to each process once.
    """
    if cluster is None:
        opened = _local_processes(work, shared, workers or cpu_count(), threads)
    else:
        opened = _dask_workers(work, shared, cluster)
    with opened as each:
        yield each


def last_words(error: BaseException) -> str:
    """Return an error as one line."""
    return shorten(f"{type(error).__name__}: {error}", 400, placeholder=" ...")


def _stream(calls: Iterable, **options) -> Generator:
    return Parallel(return_as="generator_unordered", batch_size=1, **options)(calls)


# --- this machine ---------------------------------------------------------------------------------------------


@contextmanager
def _local_processes(work: Work, shared: Any, workers: int, threads: int | None) -> Iterator[Each]:
    crew = _Crew(work, shared)

    def each(items: Iterable, alone: bool = False) -> Generator:
        with parallel_config(backend="threading", n_jobs=1 if alone else workers):
            # None ahead of its turn: the caller may have no more to give when a process is free.
            yield from _stream((delayed(crew)(item) for item in items), pre_dispatch="n_jobs")

    with _threads_per_process(workers, threads):
        try:
            yield each
        finally:
            crew.dismiss()


class _Crew:
    """A process for each thread of joblib, and not one pool: a pool breaks as a whole, and hides who broke it."""

    def __init__(self, work: Work, shared: Any):
        self.given = (work, shared)
        self.idle: list[tuple[BaseProcess, Connection]] = []
        self.hired: list[BaseProcess] = []

    def __call__(self, item: Any) -> Any:
        """Give the item to an idle process, or a new one, and wait for the outcome."""
        try:
            process, line = self.idle.pop()
        except IndexError:
            process, line = self._hire()
        try:
            line.send(item)
            outcome = line.recv()
        except (EOFError, ConnectionError):
            process.join()
            return Died(item, _cause(process.exitcode))
        self.idle.append((process, line))
        return outcome

    def dismiss(self) -> None:
        """End all processes, whatever they are doing."""
        for process in self.hired:
            process.kill()
            process.join()

    def _hire(self) -> tuple[BaseProcess, Connection]:
        line, theirs = Pipe()
        process = get_context("spawn").Process(target=_serve, args=(theirs,))
        process.start()
        theirs.close()  # so that the line is cut when the process ends
        self.hired.append(process)
        with suppress(EOFError, ConnectionError):  # then the item finds out
            _check_start(process, line)
            line.send(self.given)  # not as an argument: start() hangs on a process that dies before it has read them
        return process, line


def _check_start(process: BaseProcess, line: Connection) -> None:
    try:
        line.recv()
    except EOFError:
        process.join()
        if process.exitcode == 1:
            raise RuntimeError(
                "A worker process cannot start; its last words are above. Each imports the main script: does that call "
                "`run` outside of `if __name__ == '__main__':`?"
            ) from None
        raise


def _serve(line: Connection) -> None:
    """Do one item after the other; what all share comes once, since a cohort may hold gigabytes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the first one dismisses the others
    Thread(target=_end_with_parent, daemon=True).start()
    line.send("up")
    work, shared = line.recv()
    with suppress(EOFError):
        while True:
            line.send(work(shared, line.recv()))


def _end_with_parent() -> None:
    """End this process when its parent was killed: nobody would read what it is still working on."""
    parent_process().join()
    os._exit(1)


def _cause(exit_code: int | None) -> str:
    if exit_code is None or exit_code >= 0:
        return f"it ended with exit code {exit_code}"
    name = signal.Signals(-exit_code).name
    return f"{name} (often: out of memory)" if name == "SIGKILL" else name


@contextmanager
def _threads_per_process(workers: int, threads: int | None) -> Iterator[None]:
    """Set what the numeric libraries of a process read when it starts."""
    before = {name: os.environ.get(name) for name in THREADS}
    share = str(max(1, cpu_count() // workers))
    os.environ.update({name: str(threads or before[name] or share) for name in THREADS})
    try:
        yield
    finally:
        for name, value in before.items():
            del os.environ[name]
            os.environ.update({name: value} if value is not None else {})


# --- a Dask cluster -------------------------------------------------------------------------------------------


@contextmanager
def _dask_workers(work: Work, shared: Any, cluster) -> Iterator[Each]:
    with _client(cluster) as client:
        _check_one_thread_each(client)

        def each(items: Iterable, alone: bool = False) -> Generator:
            # No more in flight than there are workers: Dask blames a death on all items that wait behind it.
            ahead = 1 if alone else max(1, len(client.nthreads()))
            with parallel_config(backend=_dask_backend(client, shared), n_jobs=-1):
                for outcome in _stream((delayed(work)(shared, item) for item in items), pre_dispatch=ahead):
                    _check_scheduler(client, outcome)
                    yield outcome

        yield each


@contextmanager
def _client(cluster):
    try:
        from distributed import Client
    except ImportError as error:
        raise ImportError("A cluster needs Dask, which is not installed: pip install 'txtlib[cluster]'.") from error
    if isinstance(cluster, Client):
        yield cluster
        return
    try:
        client = Client(cluster, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ConnectionError(
            f"No Dask scheduler answers at {cluster!r} ({error}); give its address, as tcp://host:8786, or a client."
        ) from error
    with client:
        yield client


def _check_one_thread_each(client) -> None:
    crowded = {worker: threads for worker, threads in client.nthreads().items() if threads > 1}
    for worker, threads in crowded.items():
        raise ValueError(
            f"The Dask worker {worker} runs {threads} items at once in one process, where they would share torch's "
            "random numbers: start the workers with one thread each (threads_per_worker=1, or --nthreads 1)."
        )


def _check_scheduler(client, outcome: Any) -> None:
    if isinstance(outcome, Died) and client.status != "running":
        raise ConnectionError("The Dask scheduler went away; start it, and run again: what is finished is kept.")


def _dask_backend(client, shared: Any):
    from joblib._dask import DaskDistributedBackend

    class Backend(DaskDistributedBackend):
        """That of joblib 1.6, which would wait for ever for what Dask gave up, and keep Dask from letting go."""

        def effective_n_jobs(self, n_jobs):
            return max(2, super().effective_n_jobs(n_jobs))  # for one job, Parallel does the work here and not there

        def submit(self, func, callback):
            ((_, (_, item), _),) = func.items
            return super().submit(func, lambda result: callback(_outcome(item, result)))

        async def _collect(self):
            while self._continue:
                async for future, result in self.waiting_futures:
                    del self._results[future]
                    future.release()  # or Dask does a finished item again when the worker that did it dies
                    self._callbacks.pop(future)(result)
                await asyncio.sleep(0.01)

    backend = Backend(client=client)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sending large graph")
        # A task and not scattered data: Dask can bring it back when all workers that held a copy have died.
        backend.data_futures[id(shared)] = client.submit(_given_back, shared, pure=False)
    return backend


def _given_back(shared: Any) -> Any:
    return shared


def _outcome(item: Any, result: Any) -> list:
    """Return what joblib expects of a batch of one; Dask says (type, error, traceback) of what it gave up."""
    if isinstance(result, list):
        return result
    error = result[1] if isinstance(result, tuple) else getattr(result, "exc", result)
    return [Died(item, last_words(error))]
