"""Plans of long runs, as data/plans.yml declares them: which methods run on which cohort, how, and how often."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from math import ceil
from pathlib import Path

import numpy as np
import yaml

from txtlib.benchmark import Method
from txtlib.catalogue import TXT, catalogue, network_named, sets_named
from txtlib.cohort import KINDS, Cohort, load_cohort
from txtlib.joining import AWAY, SITE, joined
from txtlib.planted import planted
from txtlib.preprocess import relog
from txtlib.transfer import HOWS

PLANS = Path(__file__).parents[1] / "data" / "plans.yml"
TUNE = ("first", "cell")


@dataclass(frozen=True)
class Plan:
    """A declared run; what is not declared is as here. The names are those of the notebooks' parameters.

    ``world`` holds settings of a planted cohort, in the place of the one that is named. With ``elsewhere`` methods
    learn on the cohort and are tested on that one (txtlib/joining.py), mapped to the first one's scale by ``mapping``.
    ``methods`` are those that take part (none named: all), ``without`` those that do not. ``kinds`` are those of the
    tasks that methods with a fit for each task answer (none named: all that they can), where only survival matters,
    say. ``tune``: "first", the settings are chosen on the validation part of the first split, for each training size,
    and then fixed; "cell", in
    each cell. ``scheme`` says how test parts are chosen (txtlib/splits.py): ``splits`` of them. ``train_sizes`` are
    patients kept of a training part, or "all"; with ``same_steps`` a cut part gets more epochs, and more patience, so
    that networks take as many steps on it as on the largest. Differences are taken to ``reference``.
    """

    name: str
    cohort: str
    about: str = ""
    world: dict = field(default_factory=dict)
    elsewhere: str = ""
    mapping: str = "quantile"
    tasks: list = field(default_factory=list)
    gene_sets: str = ""
    network: str = ""
    log_offset: float = 0.0
    clinical: list = field(default_factory=lambda: ["Age"])
    n_genes: int = 100
    n_times: int = 10
    shape: dict = field(default_factory=lambda: {"width": 16, "layers": 1, "heads": 4})
    training: dict = field(default_factory=lambda: {"epochs": 20, "patience": 8, "batch_size": 32})
    changes: dict = field(default_factory=dict)
    methods: list = field(default_factory=list)
    without: list = field(default_factory=list)
    kinds: list = field(default_factory=list)
    reference: str = TXT
    scheme: dict = field(default_factory=lambda: {"name": "random"})
    splits: int = 10
    model_seeds: int = 3
    trials: int = 8
    tune: str = "first"
    train_sizes: list = field(default_factory=lambda: ["all"])
    same_steps: bool = False

    def declared(self) -> dict:
        """Return all values, those that were not declared too, as plain YAML has them."""
        return {name: value for name, value in asdict(self).items() if name != "name"}

    @property
    def folds(self) -> dict:
        """The scheme of the splits: test parts elsewhere, or as declared."""
        return {"name": "elsewhere", "column": SITE, "tested": AWAY} if self.elsewhere else self.scheme

    @property
    def sizes(self) -> list[int | None]:
        """The training sizes, the smallest first; None is the whole training part."""
        return sorted((None if size == "all" else size for size in self.train_sizes), key=lambda size: size or np.inf)

    @property
    def horizon_size(self) -> int | None:
        """The training size that decides the horizon: the smallest, or None if there is only the whole part."""
        return self.sizes[0]


def longer(method: Method, times: float) -> Method:
    """Return a method that may train for so many times its epochs, with as much more patience; others as they are."""
    stretched = {
        name: ceil(times * method.settings[name]) for name in ("epochs", "patience") if name in method.settings
    }
    return replace(method, settings={**method.settings, **stretched})


def read_plan(name: str, path: str | Path = PLANS) -> Plan:
    """Read one plan; ValueError for a name, a key or a value that cannot be, with those that can."""
    plans = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    if name not in plans:
        raise ValueError(f"No plan {name!r} in {path}; it declares {', '.join(plans)}.")
    known = [one.name for one in fields(Plan) if one.name != "name"]
    unknown = [key for key in plans[name] if key not in known]
    if unknown or "cohort" not in plans[name]:
        wrong = f"does not know {unknown[0]!r}" if unknown else "lacks a cohort"
        raise ValueError(f"Plan {name!r} of {path} {wrong}; a plan has {', '.join(known)}.")
    plan = Plan(name, **plans[name])
    _check(plan)
    return plan


def _check(plan: Plan) -> None:
    rules = {
        f"tune is one of {', '.join(TUNE)}": plan.tune in TUNE,
        "splits, model_seeds and trials are 1 or more": min(plan.splits, plan.model_seeds, plan.trials) >= 1,
        "train_sizes are numbers from 1 up, or all, each once": _are_sizes(plan.train_sizes),
        f"kinds are some of {', '.join(KINDS)}": set(plan.kinds) <= set(KINDS),
        "world is for the cohort planted": not plan.world or plan.cohort == "planted",
        f"mapping is one of {', '.join(HOWS)}": plan.mapping in HOWS,
        "what is tested elsewhere has no scheme": not plan.elsewhere or plan.scheme == {"name": "random"},
    }
    for rule, kept in rules.items():
        if not kept:
            raise ValueError(f"Plan {plan.name!r}: {rule}.")


def _are_sizes(sizes: list) -> bool:
    known = all(size == "all" or (isinstance(size, int) and size >= 1) for size in sizes)
    return bool(sizes) and known and len(set(sizes)) == len(sizes)


def entrants(plan: Plan) -> tuple[Cohort, list[Method]]:
    """Return a plan's cohort, and the methods that compete on it. Raises ValueError for a method that is not there."""
    cohort, groups = contest(plan)
    return cohort, [method for group in groups.values() for method in group]


def contest(plan: Plan) -> tuple[Cohort, dict[str, list[Method]]]:
    """Return what ``entrants`` does, the methods by group of the catalogue; a group without any is left out."""
    cohort = _cohort(plan)
    genes = {"n_genes": plan.n_genes, "gene_sets": sets_named(plan.gene_sets)}
    curves = {"n_times": plan.n_times, "grid": "quantile"}
    known = [column for column in plan.clinical if column in cohort.clinical]
    last = float(np.nanmax(cohort.outcome()[0])) if cohort.survival_task else None
    network = network_named(plan.network)
    groups = catalogue(known, genes, curves, plan.training, plan.shape, network, last, plan.changes)
    there = [method.name for group in groups.values() for method in group]
    _check_names(plan, [*plan.methods, *plan.without, plan.reference], there)
    chosen = {name: _chosen(plan, group) for name, group in groups.items()}
    return cohort, {name: group for name, group in chosen.items() if group}


def _cohort(plan: Plan) -> Cohort:
    cohort = planted(**plan.world).cohort if plan.world else load_cohort(plan.cohort)
    cohort = cohort.with_tasks(*plan.tasks) if plan.tasks else cohort
    if plan.log_offset:
        cohort = replace(cohort, expression=relog(cohort.expression, plan.log_offset))
    return joined(cohort, load_cohort(plan.elsewhere), plan.mapping) if plan.elsewhere else cohort


def _chosen(plan: Plan, group: list[Method]) -> list[Method]:
    named = [one for one in group if one.name in (plan.methods or [one.name]) and one.name not in plan.without]
    return [one for one in (_narrowed(method, plan.kinds) for method in named) if one.kinds]


def _narrowed(method: Method, kinds: list) -> Method:
    few = tuple(kind for kind in method.kinds if kind in kinds)
    return method if method.joint or not kinds else replace(method, kinds=few)


def _check_names(plan: Plan, named: Iterable[str], known: list[str]) -> None:
    unknown = [name for name in named if name not in known]
    if unknown:
        raise ValueError(f"Plan {plan.name!r}: no method is called {unknown[0]!r}; there are {', '.join(known)}.")
