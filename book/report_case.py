"""What a report is about: how much is done, a cohort as chapters ask of it, and the book that comes of it."""

from dataclasses import dataclass
from pathlib import Path

from build import Book
from reading import read_notebook

from txtlib.cohort import Cohort, CohortError  # what is slow to import comes later

# clinical columns that chapters ask for by name; beside the tasks' own, no other column is copied
ASKED = ("Age", "Size", "Grade", "NHG", "TStage", "ER", "PAM50")
PLAIN_METHODS = (
    *("constant", "age alone", "clinical Cox", "clinical and genes", "ridge age, then Cox", "random forest", "SVM"),
    *("ridge", "elastic net Cox", "MLP", "TxT, one task", "TxT, all tasks", "TxT, ranked expression"),
    *("TxT on permuted labels", "elastic net on permuted labels"),
)
MORE_METHODS = (
    *("PCA", "gradient boosting", "nearest centroid", "DeepSurv", "OmiEmbed, one task", "OmiEmbed, all tasks", "T-GEM"),
    *("TxT, value token", "TxT, chosen form", "TxT beside the clinic"),
)


@dataclass(frozen=True)
class Size:
    """How much is done: genes, and genes where many networks are trained; training steps; seeds, splits, draws."""

    genes: int
    few_genes: int
    steps: int
    seeds: int
    splits: int
    trials: int
    draws: int
    methods: tuple[str, ...]
    all_tasks: bool


SIZES = {
    "quick": Size(60, 30, 250, 2, 3, 2, 200, PLAIN_METHODS, all_tasks=False),
    "full": Size(200, 60, 800, 4, 5, 4, 500, (*PLAIN_METHODS, *MORE_METHODS), all_tasks=True),
}


@dataclass(frozen=True)
class Case:
    """A cohort, another one or None, the places of their copies, the name, how much is done, where trainings go."""

    cohort: Cohort
    other: Cohort | None
    name: str
    place: str
    other_place: str
    size: Size
    folder: str

    @property
    def training(self) -> dict[str, int]:
        """Epochs and patience: about as many steps whatever the number of patients."""
        epochs = min(max(round(self.size.steps * 32 / (0.7 * len(self.cohort))), 8), 150)
        return {"epochs": epochs, "patience": max(8, epochs // 2)}

    @property
    def shared(self) -> Cohort | None:
        """The other cohort with the tasks that both have; None where there is no other, or nothing is shared."""
        from txtlib.joining import in_common

        try:
            return in_common(self.cohort, self.other) if self.other else None
        except CohortError:
            return None

    def genes(self, most: int) -> int:
        """Return how many genes to keep, of those there are."""
        return min(most, self.cohort.expression.shape[1])

    def tasks(self, cohort: Cohort) -> list[str]:
        """Return the tasks to compare methods on: all, or the first of each kind, in their order."""
        first = {task.kind: task.name for task in reversed(cohort.tasks)}
        return [task.name for task in cohort.tasks if self.size.all_tasks or first[task.kind] == task.name]


@dataclass(frozen=True)
class Report(Book):
    """A book of the chapters that can be asked, in a place of its own; dictionaries go by the stems of chapters.

    ``ids`` are the names that no page may show. ``headings`` are of all chapters; ``left_out`` says why some are not
    there, and ``failed`` in which cell.
    """

    place: Path
    case: Case
    ids: set[str]
    headings: dict[str, str]
    left_out: dict[str, str]
    failed: dict[str, str]

    def copy(self, stem: str) -> Path:
        """Return where the executed copy of a chapter is kept."""
        return self.place / "executed" / f"{stem}.ipynb"

    def is_current(self, stem: str) -> bool:
        """Say whether a chapter was executed on just these inputs."""
        copy = self.copy(stem)
        return copy.is_file() and read_notebook(copy).metadata.run.fingerprint == self.prints[stem]


def clinical_columns(cohort: Cohort) -> list[str]:
    """Return the columns for clinical Cox regression: numbers, or up to four classes, known for half of the patients.

    They are looked for among tasks and the names that chapters know; a subtype of five classes is read from
    expression, and stays out.
    """
    tasks = [task.name for task in cohort.tasks if task.kind != "survival"]
    found = [name for name in dict.fromkeys([*ASKED, *tasks]) if name in cohort.clinical]
    return [name for name in found if _of_use(cohort.clinical[name])]


def _of_use(values) -> bool:
    few = values.dtype.kind in "fiu" or values.nunique() <= 4
    return bool(few and values.nunique() > 1 and values.notna().mean() >= 0.5)


def has_age(cohort: Cohort) -> bool:
    """Say whether a cohort has ages as numbers, the floor of every survival model."""
    return "Age" in clinical_columns(cohort) and cohort.clinical["Age"].dtype.kind in "fiu"
