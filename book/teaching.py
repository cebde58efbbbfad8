"""Tables for teachers, made from the notebooks: course plans, objectives with their exercises, common errors.

A promise of the plan is checked: a course that asks for more minutes than it says ends the build.
"""

import re
from pathlib import Path

import yaml
from dressing import EXERCISE, minutes
from exercises import exercises, objectives
from nbformat import NotebookNode
from reading import BuildError, title

COURSES = Path("data") / "courses.yml"


def teaching_files(root: Path, notebooks: dict[str, NotebookNode], seconds: dict[str, float]) -> dict[str, str]:
    """Return {name of a generated file: its Markdown}; ``seconds`` {stem: what its run took}."""
    if not (root / COURSES).is_file():
        return {}
    courses = yaml.safe_load((root / COURSES).read_text(encoding="utf-8"))
    plans = [course_plan(course, notebooks, seconds) for course in courses]
    return {
        "courses.md": "\n\n".join(plans) + "\n",
        "objectives.md": objectives_table(notebooks),
        "errors.md": errors_list(notebooks),
    }


def course_plan(course: dict, notebooks: dict[str, NotebookNode], seconds: dict[str, float]) -> str:
    """Return a course as a heading, a sentence and a table; raise BuildError where it does not fit what it promises."""
    by_number = {stem.split("_")[0]: stem for stem in notebooks}
    rows, total, machine = [], 0, 0.0
    for session in course["sessions"]:
        pages, asked, took = [], 0, 0.0
        for number, chosen in session["pages"].items():
            stem = by_number.get(number)
            known = {one.number for one in exercises(stem, notebooks[stem])} if stem else set()
            if stem is None or not set(chosen) <= known:
                raise BuildError(f"{COURSES}: {course['name']!r} asks for page {number}, exercises {chosen}: not there")
            asked += minutes(stem, notebooks[stem])["reading"] + EXERCISE * len(chosen)
            took += seconds.get(stem, 0.0)
            pages.append(_page(stem, notebooks[stem], chosen))
        total, machine = total + asked, machine + took
        rows.append(f"| {session['title']} | {'; '.join(pages)} | {asked} | {took:.0f} |")
    if total > course["minutes"]:
        raise BuildError(f"{COURSES}: {course['name']!r} promises {course['minutes']} minutes and asks for {total}")
    return "\n".join(
        [
            f"### {course['name']}",
            "",
            f"For {course['for']}. {total} minutes of reading and exercises in {course['minutes']}, so that "
            f"{course['minutes'] - total} are left for questions; all pages together run in {machine:.0f} s.",
            "",
            "| session | pages and exercises | minutes | seconds to run |",
            "|:--|:--|--:|--:|",
            *rows,
        ]
    )


def _page(stem: str, node: NotebookNode, chosen: list[int]) -> str:
    asked = f", exercise{'s' * (len(chosen) > 1)} {' and '.join(map(str, chosen))}" if chosen else ""
    return f"[{_cell(title(node, stem))}](../notebooks/{stem}.ipynb){asked}"


def objectives_table(notebooks: dict[str, NotebookNode]) -> str:
    """Return all objectives by id, with the exercises that practise each."""
    rows = []
    for stem, node in notebooks.items():
        for id, what in objectives(node).items():
            served = [one.number for one in exercises(stem, node) if id in one.practises]
            rows.append(
                f"| {id} | {_cell(what)} | [{stem.split('_')[0]}](../notebooks/{stem}.ipynb): {_numbers(served)} |"
            )
    return "\n".join(["| id | you will be able to | exercises |", "|:--|:--|:--|", *rows, ""])


def _numbers(found: list[int]) -> str:
    return ", ".join(map(str, found)) or "none"


def errors_list(notebooks: dict[str, NotebookNode]) -> str:
    """Return every exercise with the wrong answers that its check is known to refuse."""
    rows = [
        f"| [{stem.split('_')[0]}.{one.number} {_cell(one.name)}](../notebooks/{stem}.ipynb) | "
        f"{'; '.join(_cell(wrong['error']) for wrong in one.wrong)} |"
        for stem, node in notebooks.items()
        for one in exercises(stem, node)
    ]
    return "\n".join(["| exercise | what students try |", "|:--|:--|", *rows, ""])


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", r"\|")
