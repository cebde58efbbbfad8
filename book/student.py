"""`make student`: the notebooks without solutions, stubs to fill in and checks to pass, in `_build/student`."""

import shutil
import sys
from pathlib import Path

import nbformat
from build import ROOT
from exercises import BEGIN, for_students
from reading import BuildError, read_notebooks, told
from running import say

ALONG = ("notebooks/profiles", "LICENSE", "CITATION.cff")  # what is of use beside the notebooks


def write_students(root: Path) -> list[Path]:
    """Write the student edition of every notebook and return the files; raise BuildError where a solution is left."""
    folder = root / "_build" / "student"
    shutil.rmtree(folder, ignore_errors=True)
    written = []
    for stem, node in read_notebooks(root / "notebooks").items():
        bare = for_students(node)
        text = nbformat.writes(bare)
        if BEGIN in text or '"wrong"' in text:
            raise BuildError(
                f"the student edition of {stem} still holds an answer; look at its cells tagged `solution`"
            )
        path = folder / "notebooks" / f"{stem}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(bare, path)
        written.append(path)
    for name in ALONG:
        if (root / name).is_dir():
            shutil.copytree(root / name, folder / name)
        elif (root / name).is_file():
            shutil.copyfile(root / name, folder / name)
    return written


def main() -> None:
    """Write the student edition and say where it is."""
    written = write_students(ROOT)
    say(f"{len(written)} notebooks in {written[0].parent.relative_to(ROOT)}: open them where txtlib is installed")


if __name__ == "__main__":
    sys.exit(told("make student", main))
