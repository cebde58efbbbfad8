"""The first page of a report: whose patients, what ran and what it says, what did not, what it cost, made with what."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime

from build import versions
from nbformat import NotebookNode
from rendering import cost_table
from report_case import Report, clinical_columns
from running import leaked
from unnamed import sought

from txtlib.cohort import Cohort  # what is slow to import comes later

NO_CLINICAL_USE = """```{admonition} Not for clinical use
:class: warning
WHAT Small models were made in minutes, to learn and to judge methods. Nothing here may guide the care of a patient.
```"""
LIMITS = """Networks here are far smaller than the article's, and were trained for minutes. That a method is no better
than age on these patients says little of the method, and that it is better says little of other patients: one cohort is
one anecdote. Genes that a page names are no targets and no markers. Where a page says *(not executed)*, it asks for a
number of a chapter that is no part of a report."""
FINDINGS = {  # what the cover takes from a chapter, where the chapter glues all of it
    "04": "Harrell's C of age alone {cohort_age_floor}, of the clinical columns {cohort_clinical_floor}.",
    "06": "In Uno's C, TxT on many tasks is {training_many_age_words} age alone: {training_many_age}; it is "
    "{training_many_cox_words} clinical Cox: {training_many_cox}.",
    "07": "Of {bench_comparisons} comparisons with TxT on one task, {bench_told} leave out 0, and {bench_holm} remain "
    "after Holm's correction.",
    "09": "In ranking, TxT on one task was: {frozen_word_age}.",
    "10": "Labels that neighbours in TxT's vectors share beyond chance: {maps_ordered}. Better than expression itself: "
    "{maps_better}.",
    "11": "Cross-fitted hazard ratio of two clusters {luma_hr}, permutation p {luma_p}.",
    "12": "Clinical tasks learned with survival, better than a constant over seeds: {clinical_learned}.",
    "13": "Tasks learned, by the rule: plain TxT {perturb_knows_plain}; {perturb_other} {perturb_knows_other}.",
}


def cover(found: Report, executed: dict[str, NotebookNode]) -> str:
    """Return the first page: whose patients, what ran and what it says, what did not, what it cost, made with what."""
    name, cohort = plain_text(found.case.cohort.name), found.case.cohort
    call = f"make report COHORT=... {'OTHER=... ' if found.case.other else ''}SIZE={found.profile}"
    made = [f"{key} {value}" for key, value in versions().items()]
    parts = [
        f"# {name}: a report",
        NO_CLINICAL_USE.replace("WHAT", f"This is a report on the cohort {name}."),
        f"Made on {_day(executed)} by `{call}`, from the book *Transcriptome Transformer, executed*.",
        f"## The cohort\n\n{_facts(cohort)}",
        *_section("Look at this first", map(plain_text, cautions(cohort))),
        f"## What it says\n\n{_findings(found, executed)}\n\nEach page says what a number is to be held against.",
        *_section("What was left out", [*_left_out(found), *_warnings(found, executed)]),
        f"## What it cost\n\n{cost_table({stem: found.headings[stem] for stem in executed}, executed)}",
        f"Made with {', '.join(made)}.",
        f"## What it does not say\n\n{LIMITS}",
        f"## Whose names\n\n{_privacy(found.ids)}",
    ]
    return "\n\n".join(parts) + "\n"


def plain_text(text: object) -> str:
    """Return a text on one line, with whatever Markdown would read as a mark escaped."""
    return re.sub(r"([\\`*_{}\[\]<>|$#~])", r"\\\1", " ".join(str(text).split()))


def _section(heading: str, points: Iterable[str]) -> list[str]:
    listed = "\n".join(f"- {point}" for point in points)
    return [f"## {heading}\n\n{listed}"] if listed else []


def _table(first: str, second: str, rows: list[tuple[str, str]]) -> str:
    return "\n".join([f"| {first} | {second} |", "|:--|:--|", *(f"| {key} | {value} |" for key, value in rows)])


def _day(executed: dict[str, NotebookNode]) -> str:
    """Return the day of the last execution, so that a second call with nothing to do makes the same page."""
    ends = [str(node.metadata.get("papermill", {}).get("end_time") or "")[:10] for node in executed.values()]
    return max(filter(None, ends), default=datetime.now(UTC).date().isoformat())


def _facts(cohort: Cohort) -> str:
    from txtlib.overview import overview

    facts = {
        key: f"{value:,.0f}" if float(value).is_integer() else f"{value:,.2f}"
        for key, value in overview(cohort).items()
    }
    for task in cohort.tasks:
        known = cohort.clinical[list(task.columns)].notna().all(axis=1).sum()
        facts[f"task {task.name} ({task.kind})"] = f"{known:,} samples with a label"
    facts["columns of clinical Cox regression"] = ", ".join(clinical_columns(cohort)) or "none"
    facts |= {key: cohort.about[key] for key in ("expression", "notes", "licence") if cohort.about.get(key)}
    return _table("what", "value", [(plain_text(key), plain_text(value)) for key, value in facts.items()])


def cautions(cohort: Cohort) -> list[str]:
    """Return what to look at before any score is believed, a sentence each."""
    values, found = cohort.expression.to_numpy(), []
    known = values[values == values]
    if known.max() > 50:
        found.append(
            f"The largest expression value is {known.max():,.0f}. Values on a log scale seldom pass 20: if these are "
            "counts, FPKM or TPM, take log2(x + 1) first."
        )
    if cohort.survival_task:
        found += _cautions_of_time(cohort)
    repeated = len(cohort) - cohort.patients().nunique()
    if repeated:
        found.append(f"{repeated:,} samples are further ones of a patient; all of a patient's are in one part.")
    unmatched = sum(cohort.about.get("unmatched", {}).values())
    if unmatched:
        found.append(f"{unmatched:,} samples stand in one table only, and were left out: compare the names.")
    return found


def _cautions_of_time(cohort: Cohort) -> list[str]:
    time, event = cohort.outcome()
    longest, tested = time[time == time].max(), int((event == 1).sum() * 0.2)
    unit = str((cohort.about.get("units") or {}).get(cohort.survival_task.columns[0], "days"))
    found = []
    if longest < 400 or not unit.lower().startswith("day"):
        found.append(f"The longest follow-up is {longest:,.0f} ({unit}). Chapters read durations as days.")
    if tested < 20:
        found.append(f"A test part holds about {tested} events, so intervals will be wide.")
    return found


def _findings(found: Report, executed: dict[str, NotebookNode]) -> str:
    """Return a row for each chapter, with a sentence where the chapter glues all that it needs."""
    rows = []
    for stem, node in executed.items():
        glued, sentence = glued_text(node), FINDINGS.get(stem[:2], "")
        there = set(re.findall(r"\{(\w+)\}", sentence)) <= glued.keys()
        link = f"[{plain_text(found.headings[stem])}](../notebooks/{stem}.ipynb)"
        rows.append((link, plain_text(sentence.format(**glued)) if there else ""))
    return _table("chapter", "in a sentence", rows)


def glued_text(node: NotebookNode) -> dict[str, str]:
    """Return {key: text} of all that an executed notebook glues as text or number."""
    found = {}
    for output in (output for cell in node.cells for output in cell.get("outputs", [])):
        entry = output.get("metadata", {}).get("scrapbook")
        texts = [text for kind, text in output.get("data", {}).items() if kind.endswith("text/plain")]
        if entry and texts:
            found[entry["name"]] = texts[0].strip("'\"")
    return found


def _left_out(found: Report) -> list[str]:
    failed = {stem: f"it failed in {why.replace(str(found.root), '.')}" for stem, why in found.failed.items()}
    reasons = sorted((found.left_out | failed).items())
    return [f"**{plain_text(found.headings[stem])}**: {plain_text(why)}." for stem, why in reasons]


def _warnings(found: Report, executed: dict[str, NotebookNode]) -> list[str]:
    """Return a sentence for each chapter in which a cell warned; which file it was that warned is of no interest."""
    sentences = []
    for stem, node in executed.items():
        where, text = leaked(node)
        if text:
            match = re.search(r"\w*Warning: [^\n]*", text)
            said = plain_text(match[0] if match else "words on stderr")
            sentences.append(
                f"{plain_text(found.headings[stem])} is there, with a warning in {where.split(',')[0]}: {said}"
            )
    return sentences


def _privacy(ids: set[str]) -> str:
    unsought = len(ids) - len(sought(ids))
    short = f" ({unsought:,} were not searched for, since they are short or plain numbers)" if unsought else ""
    return (
        "Patients were given numbers for names before the first cell ran, and the pages were searched for the names of "
        f"samples and patients{short}. None stands in them. Pages hold counts, scores and curves, and some curves are "
        "of single patients. In a small cohort these may be known again, so ask those who answer for the data before "
        "you hand the report on."
    )
