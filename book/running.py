"""Executing notebooks: papermill, each in a process of its own, side by side on the cores there are."""

import multiprocessing
import os
import re
import resource
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from graphlib import TopologicalSorter
from pathlib import Path

import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError
from reading import tags

say = partial(print, flush=True)  # several processes write to one terminal or log
HEARTBEAT = 10  # seconds between two lines of a running notebook
UNSEEN = {"remove-stderr", "remove-output", "remove-cell"}


@dataclass(frozen=True)
class Job:
    """One notebook to execute. `record` (fingerprint, profile) is kept in the copy, with the cost.

    Under `scratch`, a folder from the root, lies what is running and what has failed. `strict`: a warning is a fault.
    """

    root: Path
    stem: str
    parameters: dict
    target: Path
    record: dict
    threads: int
    scratch: str = "_build"
    strict: bool = True


@dataclass
class Outcome:
    """What came of it: wall and processor seconds, peak memory in MB, where it failed ("": nowhere), the traceback."""

    seconds: float = 0.0
    peak_mb: int = 0
    cpu_seconds: float = 0.0
    failure: str = ""
    traceback: str = ""


def run_all(jobs: dict[str, Job], needs: dict[str, list[str]], workers: int) -> dict[str, Outcome]:
    """Execute notebooks, each after those it needs, and none after a failure. Returns stem -> outcome."""
    order = TopologicalSorter({stem: [name for name in needs[stem] if name in jobs] for stem in jobs})
    order.prepare()
    outcomes, running, ready = {}, {}, []
    with _pool(workers) as pool:
        while True:
            ready += order.get_ready()
            failed = any(outcome.failure for outcome in outcomes.values())
            while ready and len(running) < workers and not failed:
                stem = ready.pop(0)
                running[pool.submit(run, jobs[stem])] = stem
            if not running:
                return outcomes
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                stem = running.pop(future)
                outcomes[stem] = _outcome(future)
                say(last_line(stem, outcomes[stem]))
                order.done(stem)


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """A fresh process for every notebook, so that its peak memory is its own; an interrupt ends them all."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max(1, workers), mp_context=context, max_tasks_per_child=1) as pool:
        try:
            yield pool
        except KeyboardInterrupt:
            for child in multiprocessing.active_children():
                child.terminate()
            raise


def _outcome(future: Future) -> Outcome:
    try:
        return future.result()
    except BrokenProcessPool:
        return Outcome(failure="its process, which was killed, most likely for lack of memory")
    except Exception as error:  # papermill and Jupyter raise many kinds, say where there is no kernel
        return Outcome(failure=f"its runner: {type(error).__name__}: {_first_line(str(error))}")


def last_line(stem: str, outcome: Outcome) -> str:
    """Return the line that says how a notebook ended."""
    end = "failed" if outcome.failure else f"done, peak memory {outcome.peak_mb} MB"
    return f"{stem}  {outcome.seconds:.0f} s  {end}"


def run(job: Job) -> Outcome:
    """Execute one notebook in this process, which is given to it alone.

    The copy appears at its target only when it is complete and good. A failed one goes to `failed` in the scratch.
    """
    _settle(job)
    work = Path(job.scratch) / "running" / f"{job.stem}-{os.getpid()}.ipynb"
    failed = Path(job.scratch) / "failed" / f"{job.stem}.ipynb"
    for folder in (work.parent, failed.parent, job.target.parent):
        folder.mkdir(parents=True, exist_ok=True)
    failed.unlink(missing_ok=True)
    outcome = _execute(job, work)
    if outcome.failure:
        shutil.move(work, failed)
    else:
        _keep(job, work, outcome)
    return outcome


def _settle(job: Job) -> None:
    """Relative paths keep the machine out of papermill's metadata; only the parent may end this process."""
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    os.chdir(job.root)
    os.environ.update(kernel_environment(job.root, job.threads))
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A build that was killed outright must not leave a kernel at work for an hour."""
    multiprocessing.parent_process().join()
    os.kill(os.getpid(), signal.SIGTERM)


def kernel_environment(root: Path, threads: int) -> dict[str, str]:
    """Return what a kernel finds in its environment, beyond what is there."""
    limits = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    path = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    return dict.fromkeys(limits, str(threads)) | {
        "JUPYTER_PREFER_ENV_PATH": "1",  # the kernel of this environment, not one in the home folder
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",  # a figure must reach the page
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        "PYTHONHASHSEED": "0",
        "PYTHONPATH": os.pathsep.join(path),
        "TQDM_DISABLE": "1",  # a progress bar is for a person who watches, not for a page
    }


class Progress:
    """Counts the cells as the source has them: papermill's own cell, with the parameters, does not count."""

    def __init__(self, stem: str):
        """Start the clock of a notebook; the current folder is the root."""
        self.stem, self.start, self.number = stem, time.perf_counter(), 0
        self.total = len(nbformat.read(f"notebooks/{stem}.ipynb", as_version=4).cells)
        self.injected = 0

    def cell_starts(self, cell: NotebookNode, cell_index: int) -> None:
        """Take note; called by nbclient."""
        self.injected += "injected-parameters" in tags(cell)
        self.number = cell_index + 1 - self.injected

    def seconds(self) -> float:
        """Return the seconds since the start."""
        return time.perf_counter() - self.start

    def cell(self) -> str:
        """Return which cell is running."""
        return f"cell {self.number} of {self.total}"

    def line(self) -> str:
        """Return the line for the terminal."""
        return f"{self.stem}  {self.cell()}  {self.seconds():.0f} s"


@contextmanager
def heartbeat(line: Callable[[], str]) -> Iterator[None]:
    """Say a line every few seconds, as long as the block runs."""
    end = threading.Event()

    def beat() -> None:
        while not end.wait(HEARTBEAT):
            say(line())

    threading.Thread(target=beat, daemon=True).start()
    try:
        yield
    finally:
        end.set()


def _execute(job: Job, work: Path) -> Outcome:
    progress = Progress(job.stem)
    say(f"{job.stem}  starts")
    failure, traceback = "", ""
    try:
        with heartbeat(progress.line):
            node = _papermill(job, work, progress)
        failure, traceback = leaked(node) if job.strict else ("", "")
    except PapermillExecutionError as error:
        failure = f"{progress.cell()}: {error.ename}: {_first_line(error.evalue)}"
        traceback = plain("\n".join(error.traceback))
    except DeadKernelError:
        failure = f"{progress.cell()}: the kernel died, most likely for lack of memory"
    return Outcome(progress.seconds(), peak_memory(), cpu_seconds(), failure, traceback)


def _papermill(job: Job, work: Path, progress: Progress) -> NotebookNode:
    return papermill.execute_notebook(
        f"notebooks/{job.stem}.ipynb",
        work.as_posix(),
        parameters=job.parameters,
        kernel_name="python3",
        language="python",
        progress_bar=False,
        on_cell_start=progress.cell_starts,
        extra_arguments=["--log-level=50"],  # what a kernel says of itself is no news for the terminal
    )


def leaked(node: NotebookNode) -> tuple[str, str]:
    """Return where a notebook wrote to stderr, and what, or ("", ""): a warning on a page is a fault."""
    cells = [cell for cell in node.cells if "injected-parameters" not in tags(cell)]
    for number, cell in enumerate(cells, start=1):
        text = "".join(output.text for output in cell.get("outputs", []) if output.get("name") == "stderr")
        if text and not UNSEEN & set(tags(cell)):
            return f"cell {number} of {len(cells)}, which wrote to stderr: {_first_line(text)}", text[:2000]
    return "", ""


def _first_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[0]


def plain(text: str) -> str:
    """Return a text without colour codes."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def peak_memory() -> int:
    """Return the peak resident memory of the largest process that this one started, in MB (2**20 bytes)."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / unit)


def cpu_seconds() -> float:
    """Return the processor seconds of all processes that this one started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _keep(job: Job, work: Path, outcome: Outcome) -> None:
    """Fold papermill's own cell, note the cost, and only then take the copy for good, in one step."""
    node = nbformat.read(work, as_version=4)
    for cell in node.cells:
        if "injected-parameters" in tags(cell):
            cell.metadata.tags.append("hide-input")
    node.metadata.papermill.pop("output_path")
    cost = {"seconds": round(outcome.seconds, 1), "cpu_seconds": round(outcome.cpu_seconds, 1)}
    node.metadata["run"] = {**job.record, **cost, "peak_mb": outcome.peak_mb}
    nbformat.write(node, work)
    os.replace(work, job.target)
