"""Exercises, objectives and takeaways: what a notebook says of them, and the stub that a solution leaves.

An exercise is three cells. Text: a heading `### Exercise N: ...` and a line that names the objectives it practises.
A code cell with the tag `solution`, whose answer stands between the two marks that nbgrader uses too. A code cell with
the tag `check`, which asserts properties of the answer. Both code cells run on their own, without the rest of the page.

The solution cell's metadata `txt.wrong` lists wrong answers: `error`, what was thought, and `source`, what takes the
place of the lines between the marks. The check must fail on each.
"""

import re
from copy import deepcopy
from dataclasses import dataclass, field

from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell
from reading import BuildError, prose, tags

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
TODO = 'raise NotImplementedError("your answer")'
LEAST_EXERCISES, LEAST_WRONG = 2, 2
HEADING = re.compile(r"^### Exercise (\d+): (.+)$", re.M)
PRACTISES = re.compile(r"^\*Practises ([^*]+)\.\*$", re.M)
OBJECTIVE = re.compile(r"^\| *(\d\d\.\d+) *\| *(.+?) *\| *\[.+?\]\(#.+?\) *\|$", re.M)
TAKEAWAYS = "## What to take away"
EVIDENCE = re.compile(r'<a href="#cell-([\w-]+)">')
CLOSING = (TAKEAWAYS, "```{admonition} What would change our mind", "## Exercises", "**Read next:**")
OPENING = ("**The question:**", "**Before you start:**")


@dataclass(frozen=True)
class Exercise:
    """One exercise of a notebook: number, name, the ids it practises, the code of solution and check, wrong answers."""

    number: int
    name: str
    practises: list[str]
    solution: str
    check: str
    wrong: list[dict[str, str]] = field(default_factory=list)

    @property
    def stub(self) -> str:
        """The solution without its answer."""
        return replaced(self.solution, TODO)


def replaced(solution: str, answer: str) -> str:
    """Return a solution with another answer between its marks, indented as they are; the marks go."""
    lines = solution.splitlines()
    begin, end = (next((k for k, line in enumerate(lines) if line.strip() == mark), None) for mark in (BEGIN, END))
    if begin is None or end is None or end < begin:
        raise BuildError(f"a solution needs a line {BEGIN!r} and, after it, a line {END!r}")
    margin = lines[begin][: len(lines[begin]) - len(lines[begin].lstrip())]
    return "\n".join(lines[:begin] + [margin + line for line in answer.splitlines()] + lines[end + 1 :])


def without_marks(solution: str) -> str:
    """Return the code of a solution as a reader sees it."""
    return "\n".join(line for line in solution.splitlines() if line.strip() not in (BEGIN, END))


def exercises(stem: str, node: NotebookNode) -> list[Exercise]:
    """Return a notebook's exercises; raise BuildError where one is not the three cells that it should be."""
    found = []
    for text, solution, check in zip(node.cells, node.cells[1:], node.cells[2:], strict=False):
        if "solution" in tags(solution):
            heading, practises = HEADING.search(text.source), PRACTISES.search(text.source)
            if text.cell_type != "markdown" or not heading or not practises or "check" not in tags(check):
                raise BuildError(
                    f"notebook {stem}: a solution stands between a text with '### Exercise N: name' and a line "
                    f"'*Practises NN.N, NN.N.*', and a cell with the tag `check`; cell {solution.id} does not"
                )
            ids = re.split(r", | and ", practises[1])
            wrong = list(solution.metadata.get("txt", {}).get("wrong", []))
            found.append(Exercise(int(heading[1]), heading[2], ids, solution.source, check.source, wrong))
    return found


def objectives(node: NotebookNode) -> dict[str, str]:
    """Return {id: what a reader will be able to do}, from the table of the first cell."""
    return dict(OBJECTIVE.findall(node.cells[0].source))


def takeaways(node: NotebookNode) -> list[str]:
    """Return the points under the heading of takeaways."""
    text = prose(node)
    section = text[text.index(TAKEAWAYS) :].split("\n## ")[0] if TAKEAWAYS in text else ""
    section = section.split("\n```")[0]
    return [" ".join(point.split()) for point in re.split(r"^- ", section, flags=re.M)[1:]]


def faults(stem: str, node: NotebookNode) -> list[str]:
    """Return what a notebook lacks of the house's plan of a chapter, a sentence each."""
    text, number = prose(node), stem.split("_")[0]
    found = [f"has no {mark!r}" for mark in CLOSING if mark not in text]
    found += [f"has no {mark!r} in its first cell" for mark in OPENING if mark not in node.cells[0].source]
    known, asked = objectives(node), exercises(stem, node)
    found += [] if known else ["names no objective: rows `| NN.N | what | [section](#section) |` in the first cell"]
    found += [f"objective {id} has another chapter's number" for id in known if not id.startswith(f"{number}.")]
    served = {id for exercise in asked for id in exercise.practises}
    found += [f"objective {id} has no exercise" for id in known if id not in served]
    found += [f"exercise practises {id}, which is no objective" for id in sorted(served - known.keys())]
    if [exercise.number for exercise in asked] != list(range(1, len(asked) + 1)) or len(asked) < LEAST_EXERCISES:
        found.append(f"needs {LEAST_EXERCISES} exercises or more, numbered from 1")
    found += [
        f"exercise {exercise.number} lists fewer than {LEAST_WRONG} wrong answers"
        for exercise in asked
        if len(exercise.wrong) < LEAST_WRONG
    ]
    code = {cell.id for cell in node.cells if cell.cell_type == "code"}
    for point in takeaways(node):
        if not set(EVIDENCE.findall(point)) & code:
            found.append(f'takeaway {point[:40]!r} links to no code cell: <a href="#cell-ID">')
    return found


def check_plan(notebooks: dict[str, NotebookNode]) -> None:
    """Raise BuildError where a chapter lacks a part of the plan, naming all that are missing."""
    found = [f"notebook {stem} {fault}" for stem, node in notebooks.items() for fault in faults(stem, node)]
    if found:
        raise BuildError("; ".join(found))


def shown(node: NotebookNode) -> NotebookNode:
    """Return a notebook as the book shows it: before each solution its stub, the solution folded, without marks."""
    node, cells = deepcopy(node), []
    for cell in node.cells:
        if "solution" in tags(cell):
            cells.append(new_markdown_cell(f"```python\n{replaced(cell.source, TODO)}\n```", id=f"stub-{cell.id}"))
            cell.source = without_marks(cell.source)
            cell.metadata["tags"] = sorted({*tags(cell), "hide-input"})
            cell.metadata["mystnb"] = {"code_prompt_show": "Show a solution", "code_prompt_hide": "Hide the solution"}
        cells.append(cell)
    node.cells = cells
    return node


def for_students(node: NotebookNode) -> NotebookNode:
    """Return a notebook without outputs, answers and wrong answers: stubs to fill in, and the checks."""
    node = deepcopy(node)
    for cell in node.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        if "solution" in tags(cell):
            cell.source = replaced(cell.source, TODO)
            cell.metadata.pop("txt", None)
        if cell.cell_type == "markdown":
            cell.source = re.sub(r"^```\{dropdown\} Solution\n.*?^```\n?", "", cell.source, flags=re.M | re.S).rstrip()
    return node
