"""Cohorts whose truth is known: simulated patients with planted genes, pairs, network and hazard.

Nothing here is measured. Genes are called PLT0001, PLT0002, ...; modules are named after the role that they play
in the simulation ("immune" says nothing about immunity), subtypes and grades after the labels that they stand for.

A tumour's expression has three sources: its module's activity, its network parent, and a few axes of nuisance
variation that most genes share. Subtype shifts the activity of five modules, age that of one, and all others are
independent of both. Survival follows a Weibull hazard of four single genes, two pairs of genes, and age; the two
genes of a pair are symmetric and independent, so that neither shows anything alone.

Unlike real tumours: labels are missing at random, censoring depends on nothing, hazards are proportional, and the
hazard's genes are well expressed and free of nuisance, so that decoys carry no trace of the hazard.
"""

from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from lifelines import KaplanMeierFitter
from scipy.optimize import brentq
from sksurv.metrics import concordance_index_censored

from txtlib.cohort import Cohort, CohortError, Task, make_cohort

SUBTYPES = ("Basal", "Her2", "LumA", "LumB", "Normal")
SHARES = {"Basal": 0.16, "Her2": 0.10, "LumA": 0.53, "LumB": 0.16, "Normal": 0.05}
GRADES = ("G1", "G2", "G3")
GRADE_SHARES = (0.19, 0.45, 0.36)
# Mean activity of a subtype programme in each subtype, before it is standardised; the SD within a subtype.
PROGRAMMES = {
    "proliferation": (1.5, 1.0, -0.7, 0.7, -0.7),
    "luminal": (-1.6, -0.6, 0.8, 0.7, 0.3),
    "basal": (2.0, 0.0, -0.5, -0.5, 0.2),
    "her2": (-0.3, 2.2, -0.3, 0.0, -0.3),
    "normal": (0.2, -0.3, 0.2, -0.6, 2.2),
}
WITHIN = 0.6
MAIN = {"proliferation": 1.0, "invasion": 0.8, "defence": -1.0, "repair": -0.8}
PAIRS = {("immune", "stroma"): 1.0, ("metabolism", "signalling"): -1.0}
NEUTRAL = ("neutral_1", "neutral_2", "neutral_3", "neutral_4")
MODULES = (*PROGRAMMES, "ageing", "invasion", "defence", "repair", *(m for pair in PAIRS for m in pair), *NEUTRAL)
MODULE_SHARE = 0.045  # of all genes, in each module; the rest are background
LINKS, LINKS_WITHIN = 2, 0.85  # links that a new gene brings to the network; share of the second ones in its module
INHERITED = 0.5  # correlation of a gene with its network parent, apart from what they share as a module
ABSENT = 0.05  # share of the genes that the network lacks
NUISANCE = (0.45, 0.4, 0.35, 0.3, 0.25, 0.2)  # SD of the genes' loadings on each axis, strong ones first
AGE = {"mean": 65.0, "sd": 12.5, "low": 24.0, "high": 96.0}  # years
AGE_OF_SUBTYPE = (-9.0, -0.5, 1.0, 6.0, -0.5)  # years from the mean
AGE_IN_MODULE = 0.55  # correlation of age with the activity of its module
SHAPE = 2.0  # of the Weibull hazard: it rises with time
FIVE_YEARS, FIVE_YEAR_SURVIVAL = 1826.0, 0.86  # of the first site
FOLLOW_UP = (0.5, 1.5)  # shortest and longest time to censoring, as a share of the mean
REFERENCE = 4000  # patients on whom cut points and follow-up are set, so that no cohort's own size matters
TASKS = (
    Task("Age", "regression", ("Age",)),
    Task("Size", "regression", ("Size",)),
    Task("NHG", "classification", ("NHG",)),
    Task("PAM50", "classification", ("PAM50",)),
    Task("OS", "survival", ("OS_duration", "OS_event")),
)
ABOUT = {
    "units": {"Age": "years", "Size": "mm", "OS_duration": "days"},
    "classes": {"NHG": list(GRADES), "PAM50": list(SUBTYPES)},
    "licence": "simulated by txtlib (MIT)",
    "citation": [],
    "notes": "simulated: no real patient and no real gene; names of modules and labels are roles in the simulation",
}


@dataclass(frozen=True)
class Biology:
    """What all sites of a world share: G genes with their roles, the network, and the hazard.

    ``role`` (G,) is the row of MODULES or -1 (background), ``parent`` (G,) a gene's network parent or -1,
    ``order`` (G,) parents first, ``loading`` (G,) on the module's activity, ``nuisance`` (G, 6), ``mean`` and
    ``spread`` (G,) in log2(FPKM + 1). ``cuts`` are the grades' cut points, ``scale`` the Weibull scale in days.
    """

    seed: int
    genes: pd.Index
    role: np.ndarray
    parent: np.ndarray
    order: np.ndarray
    loading: np.ndarray
    nuisance: np.ndarray
    mean: np.ndarray
    spread: np.ndarray
    noise: float
    effects: pd.Series
    pairs: pd.DataFrame
    network: pd.DataFrame
    edges: pd.DataFrame
    cuts: np.ndarray = field(default_factory=lambda: np.zeros(2))
    scale: float = np.nan

    def members(self, *modules: str) -> list[str]:
        """Return the genes of these modules, in the order of the genes."""
        return list(self.genes[np.isin(self.role, [MODULES.index(module) for module in modules])])

    def hazard_genes(self) -> list[str]:
        """Return the genes that the hazard sees, singly or in pairs."""
        return [*self.effects.index[: len(MAIN)], *self.pairs["gene1"], *self.pairs["gene2"]]


@dataclass(frozen=True)
class Truth:
    """What the patients of one site hide.

    ``design`` (n, terms) holds what the hazard sees: single genes in SDs from their mean, products of such genes
    ("a x b"), age in years from 65; ``effects`` (terms,) the log hazard ratios; ``linear_predictor`` (n,) their
    product; ``event_time`` (n,) in days, before any censoring; ``labels`` (n, 4) before any went missing.
    ``pairs`` (gene1, gene2, coefficient) are the products by name; ``programmes`` gives the genes that tell subtype,
    age and proliferation; ``decoys`` are independent of the hazard and of all labels; ``network`` (gene1, gene2)
    are the edges between co-expressed genes. ``shape`` and ``scale`` (days) are those of the Weibull hazard
    ``shape / scale * (t / scale) ** (shape - 1) * exp(linear_predictor)``.
    """

    effects: pd.Series
    pairs: pd.DataFrame
    design: pd.DataFrame
    linear_predictor: pd.Series
    event_time: pd.Series
    labels: pd.DataFrame
    programmes: dict[str, list[str]]
    decoys: list[str]
    network: pd.DataFrame
    shape: float
    scale: float

    @property
    def coefficients(self) -> pd.Series:
        """The log hazard ratio per SD of each single gene."""
        return self.effects.iloc[: len(MAIN)]

    @property
    def age_coefficient(self) -> float:
        """The log hazard ratio per year of age."""
        return float(self.effects["Age"])

    def true_survival(self, times) -> np.ndarray:
        """Return each patient's probability to outlive ``times`` (m,) in days: (n, m)."""
        hazard = np.exp(self.linear_predictor.to_numpy())[:, None]
        return np.exp(-hazard * (np.asarray(times, float) / self.scale) ** self.shape)


@dataclass(frozen=True)
class World:
    """A planted cohort, what a reader may know beside it (network, modules), and the truth behind it.

    ``network`` has a row per edge (gene1, gene2, score 0 to 1000) and lacks some genes; ``modules`` gives the genes
    of each module; ``biology`` is what a second site shares.
    """

    cohort: Cohort
    network: pd.DataFrame
    modules: dict[str, list[str]]
    truth: Truth
    biology: Biology


@dataclass(frozen=True)
class _Population:
    """Who comes to a site, and how long they are followed."""

    event_rate: float
    missing: float
    mean_age: float = AGE["mean"]
    shares: dict[str, float] = field(default_factory=lambda: dict(SHARES))


def planted(
    n: int = 600,
    n_genes: int = 300,
    seed: int = 0,
    patient_seed: int = 0,
    event_rate: float = 0.12,
    missing: float = 0.02,
    main_effect: float = 0.35,
    interaction: float = 0.4,
    age_effect: float = 0.1,
    noise: float = 0.15,
    subtype_shares: dict[str, float] | None = None,
) -> World:
    """Plant a world and draw n patients from it, seen by RNA sequencing: log2(FPKM + 1), (n, n_genes) float32.

    ``seed`` fixes the biology (roles of genes, network, hazard) and ``patient_seed`` the patients; a larger n keeps
    the first patients as they are. ``event_rate`` sets the length of follow-up, and nothing else. ``missing`` is
    the share of each label (not of survival) that is left empty. ``main_effect`` is the log hazard ratio per SD of
    the strongest gene, ``interaction`` that per unit of a product of two genes, ``age_effect`` that per year; 0 is
    a control. ``noise`` is the technical SD in log2 units. Raises CohortError.
    """
    population = _Population(event_rate, missing, shares=dict(SHARES if subtype_shares is None else subtype_shares))
    _check(n, n_genes, noise, population)
    _check_effects(main_effect=main_effect, interaction=interaction, age_effect=age_effect)
    biology = _calibrated(_biology(n_genes, seed, main_effect, interaction, age_effect, noise))
    return _site(biology, population, n, (seed, 1, patient_seed), "PLANTED (simulated)", "SITE1")


def second_site(
    world: World,
    n: int = 500,
    seed: int = 1,
    event_rate: float = 0.4,
    missing: float = 0.05,
    mean_age: float = 61.0,
    subtype_shares: dict[str, float] | None = None,
    shift: float = 1.0,
    scale: float = 0.3,
    saturation: float = 13.0,
    missing_genes: float = 0.1,
) -> World:
    """Draw n new patients of the same biology, seen on another platform: log2 intensities, (n, fewer genes).

    Each gene has a shift of its own (SD ``shift``, log2 units), a scale of its own (SD ``scale`` of its logarithm),
    and flattens towards ``saturation`` (log2 units); the share ``missing_genes`` is not measured, the hazard's genes
    excepted. ``seed`` fixes patients and platform. Ranks of patients within a gene survive. Raises CohortError.
    """
    population = _Population(event_rate, missing, mean_age, dict(SHARES if subtype_shares is None else subtype_shares))
    _check(n, len(world.biology.genes), world.biology.noise, population)
    _check_platform(world.biology, shift, scale, saturation, missing_genes)
    name = "PLANTED, second site (simulated)"
    site = _site(world.biology, population, n, (world.biology.seed, 2, seed), name, "SITE2")
    streams = _streams((world.biology.seed, 3, seed), "shift", "scale", "genes")
    return _reseen(site, streams, shift, scale, saturation, missing_genes)


# --- biology --------------------------------------------------------------------------------------------------


def _streams(entropy, *names: str) -> dict[str, np.random.Generator]:
    """Return a generator for each name, so that what one draws more of leaves the others as they were."""
    children = np.random.SeedSequence(entropy).spawn(len(names))
    return {name: np.random.default_rng(child) for name, child in zip(names, children, strict=True)}


def _biology(n_genes, seed, main_effect, interaction, age_effect, noise) -> Biology:
    rng = _streams((seed, 0), "roles", "network", "hazard", "loadings", "levels", "scores")
    width = len(str(max(n_genes, 9999)))
    genes = pd.Index([f"PLT{gene:0{width}d}" for gene in range(1, n_genes + 1)], name="gene")
    role = _roles(rng["roles"], n_genes)
    order = rng["network"].permutation(n_genes)
    parent, links = _attach(rng["network"], role, order)
    chosen = {m: rng["hazard"].choice(np.flatnonzero(role == MODULES.index(m))) for m in _hazard_modules()}
    pairs = _pairs(genes, chosen, interaction)
    effects = _effects(genes, chosen, pairs, main_effect, age_effect)
    hazardous = np.isin(np.arange(n_genes), list(chosen.values()))
    loading, nuisance = _loadings(rng["loadings"], role, hazardous)
    mean, spread = _levels(rng["levels"], hazardous)
    network, edges = _network(rng["scores"], genes, role, hazardous, links)
    return Biology(
        seed, genes, role, parent, order, loading, nuisance, mean, spread, noise, effects, pairs, network, edges
    )


def _hazard_modules() -> list[str]:
    return [*MAIN, *(module for pair in PAIRS for module in pair)]


def _roles(rng, n_genes: int) -> np.ndarray:
    size = max(2, round(MODULE_SHARE * n_genes))
    role = np.full(n_genes, -1)
    role[: size * len(MODULES)] = np.repeat(np.arange(len(MODULES)), size)
    return rng.permutation(role)


def _attach(rng, role, order) -> tuple[np.ndarray, set[tuple[int, int]]]:
    """Grow a scale-free network: each gene links to earlier ones by their degree, mostly in its own module.

    Returns the parent of each gene (its first link within the module, or -1) and the links, smaller gene first.
    """
    parent, edges = np.full(len(role), -1), set()
    ends = {module: [] for module in np.unique(role)}  # a gene stands here once for each of its links
    everywhere = []
    for gene in order:
        home = ends[role[gene]] if role[gene] >= 0 else []
        for link in range(LINKS):
            inside = bool(home) and (link == 0 or rng.random() < LINKS_WITHIN)
            pool = home if inside else everywhere
            if not pool:
                continue
            other = pool[rng.integers(len(pool))]
            if inside and link == 0:
                parent[gene] = other
            edges.add((min(gene, other), max(gene, other)))
            ends[role[other]].append(other)
            everywhere.append(other)
        ends[role[gene]] += [gene] * LINKS
        everywhere += [gene] * LINKS
    return parent, edges


def _pairs(genes, chosen, interaction) -> pd.DataFrame:
    rows = [(genes[chosen[a]], genes[chosen[b]], sign * interaction) for (a, b), sign in PAIRS.items()]
    return pd.DataFrame(rows, columns=["gene1", "gene2", "coefficient"])


def _effects(genes, chosen, pairs, main_effect, age_effect) -> pd.Series:
    single = {genes[chosen[module]]: weight * main_effect for module, weight in MAIN.items()}
    joint = {f"{a} x {b}": coefficient for a, b, coefficient in pairs.itertuples(index=False)}
    return pd.Series({**single, **joint, "Age": age_effect}, name="log hazard ratio", dtype=float)


def _loadings(rng, role, hazardous) -> tuple[np.ndarray, np.ndarray]:
    """Return loadings on the module (G,) and on the nuisance axes (G, 6).

    The hazard's genes have no nuisance: a gene that shares an axis with one of them would be no decoy.
    """
    loading = np.where(role >= 0, rng.uniform(0.55, 0.85, len(role)), 0.0)
    nuisance = rng.normal(0, NUISANCE, (len(role), len(NUISANCE)))
    nuisance *= np.minimum(1, 0.9 / np.linalg.norm(nuisance, axis=1, keepdims=True))
    return loading, np.where(hazardous[:, None], 0.0, nuisance)


def _levels(rng, hazardous) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and SD of each gene (G,) in log2(FPKM + 1); the floor at 0 spares the hazard's genes."""
    mean, spread = rng.gamma(1.8, 1.7, len(hazardous)), np.exp(rng.normal(0.25, 0.2, len(hazardous)))
    return np.where(hazardous, 5.5 + np.minimum(mean, 4), np.minimum(mean, 10)), spread


def _network(rng, genes, role, hazardous, links) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the network as a database has it (scores, missing genes) and the edges that carry co-expression."""
    ends = np.array(sorted(links))
    true = (role[ends[:, 0]] == role[ends[:, 1]]) & (role[ends[:, 0]] >= 0)
    score = np.clip(rng.normal(np.where(true, 800, 450), 110), 150, 999).round().astype(int)
    table = pd.DataFrame({"gene1": genes[ends[:, 0]], "gene2": genes[ends[:, 1]], "score": score})
    unknown = genes[~hazardous][rng.permutation(np.sum(~hazardous))[: round(ABSENT * len(genes))]]
    known = ~(table["gene1"].isin(unknown) | table["gene2"].isin(unknown))
    return table[known].reset_index(drop=True), table.loc[true, ["gene1", "gene2"]].reset_index(drop=True)


def _calibrated(biology: Biology) -> Biology:
    """Set the grades' cut points and the hazard's level on reference patients of the first site."""
    home = _Population(0.5, 0.0)
    latent = _latent(biology, home, REFERENCE, (biology.seed, 4))
    cuts = np.quantile(latent["grade"], np.cumsum(GRADE_SHARES)[:2])
    hazard = np.exp(_design(biology, latent) @ biology.effects.to_numpy())

    def surplus(log_rate):
        return np.exp(-np.exp(log_rate) * hazard).mean() - FIVE_YEAR_SURVIVAL

    scale = FIVE_YEARS * np.exp(-brentq(surplus, -100, 100) / SHAPE)
    return replace(biology, cuts=cuts, scale=scale)


# --- patients -------------------------------------------------------------------------------------------------


def _latent(biology: Biology, population: _Population, n: int, entropy) -> dict[str, np.ndarray]:
    """Draw what n patients are: subtype and age (n,), activity (n, modules), genes in SDs (G, n), grade score, size.

    Every draw goes patient by patient and no step looks at the whole cohort, so a larger n keeps the first ones.
    """
    rng = _streams(entropy, "subtype", "age", "activity", "genes", "nuisance", "grade", "size")
    subtype = _subtypes(rng["subtype"], population.shares, n)
    age = rng["age"].normal(population.mean_age + np.take(AGE_OF_SUBTYPE, subtype), AGE["sd"])
    age = np.clip(age, AGE["low"], AGE["high"]).round()
    activity = _activity(rng["activity"], subtype, age)
    own = rng["genes"].standard_normal((n, len(biology.genes)))
    axes = rng["nuisance"].standard_normal((n, len(NUISANCE)))
    proliferation, invasion = (activity[:, MODULES.index(module)] for module in ("proliferation", "invasion"))
    size = 0.3 * proliferation + 0.4 * invasion + 0.87 * rng["size"].standard_normal(n)
    return {
        "subtype": subtype,
        "age": age,
        "activity": activity,
        "genes": _genes(biology, activity, own, axes),
        "grade": 0.88 * proliferation + 0.48 * rng["grade"].standard_normal(n),
        "size": np.maximum(1, np.exp(np.log(17.5) + 0.45 * size).round()),
    }


def _subtypes(rng, shares: dict[str, float], n: int) -> np.ndarray:
    cumulative = np.cumsum([shares.get(subtype, 0.0) for subtype in SUBTYPES])
    return np.searchsorted(cumulative[:-1] / cumulative[-1], rng.random(n), side="right")


def _activity(rng, subtype, age) -> np.ndarray:
    """Return the activity of each module (n, modules), with mean 0 and SD 1 at the first site."""
    activity = rng.standard_normal((len(subtype), len(MODULES)))
    share = np.array([SHARES[name] for name in SUBTYPES])
    for column, means in enumerate(PROGRAMMES.values()):
        centred = means - share @ means
        spread = np.sqrt(share @ centred**2 + WITHIN**2)
        activity[:, column] = (centred[subtype] + WITHIN * activity[:, column]) / spread
    ageing = MODULES.index("ageing")
    activity[:, ageing] *= np.sqrt(1 - AGE_IN_MODULE**2)
    activity[:, ageing] += AGE_IN_MODULE * (age - AGE["mean"]) / AGE["sd"]
    return activity


def _genes(biology: Biology, activity, own, axes) -> np.ndarray:
    """Return each gene in SDs from its mean (G, n).

    No matrix product: its rounding depends on the number of patients and of threads.
    """
    own, activity, axes = (np.ascontiguousarray(table.T) for table in (own, activity, axes))
    for gene in biology.order:
        if biology.parent[gene] >= 0:
            own[gene] *= np.sqrt(1 - INHERITED**2)
            own[gene] += INHERITED * own[biology.parent[gene]]
    rest = np.sqrt(1 - np.square(biology.nuisance).sum(1))
    shared = np.sqrt(1 - biology.loading**2)
    for gene, role in enumerate(biology.role):
        other = rest[gene] * own[gene]
        for axis, weight in enumerate(biology.nuisance[gene]):
            other = other + weight * axes[axis] if weight else other
        own[gene] = shared[gene] * other + (biology.loading[gene] * activity[role] if role >= 0 else 0.0)
    return own


def _design(biology: Biology, latent) -> np.ndarray:
    """Return the hazard's terms (n, terms), in the order of the effects."""
    row = {gene: latent["genes"][place] for place, gene in enumerate(biology.genes)}
    single = [row[gene] for gene in biology.effects.index[: len(MAIN)]]
    joint = [row[a] * row[b] for a, b in zip(biology.pairs["gene1"], biology.pairs["gene2"], strict=True)]
    return np.column_stack([*single, *joint, latent["age"] - AGE["mean"]])


def _site(biology: Biology, population: _Population, n: int, entropy, name: str, prefix: str) -> World:
    rng = _streams(entropy, "patients", "platform", "event", "censoring", "missing")
    latent = _latent(biology, population, n, rng["patients"].integers(2**63))
    samples = pd.Index([f"{prefix}-{row:05d}" for row in range(1, n + 1)], name="Sample")
    truth = _truth(biology, latent, samples, rng["event"])
    limit = _follow_up(biology, population) * rng["censoring"].uniform(*FOLLOW_UP, n)
    clinical = _masked(truth.labels, population.missing, rng["missing"]).assign(
        OS_duration=np.ceil(np.minimum(truth.event_time, limit)), OS_event=(truth.event_time <= limit).astype(float)
    )
    technical = biology.noise * rng["platform"].standard_normal((n, len(biology.genes)))
    level = biology.mean + biology.spread * latent["genes"].T + technical
    expression = pd.DataFrame(np.maximum(level, 0).astype(np.float32), samples, biology.genes.to_list())
    about = {"name": name, "expression": "log2(FPKM + 1), simulated", **ABOUT}
    cohort = make_cohort(expression, clinical, TASKS, about, where=name)
    modules = {module: biology.members(module) for module in MODULES}
    return World(cohort, biology.network, modules, truth, biology)


def _truth(biology: Biology, latent, samples, rng) -> Truth:
    design = pd.DataFrame(_design(biology, latent), samples, biology.effects.index)
    predictor = sum(design[term] * effect for term, effect in biology.effects.items())
    labels = pd.DataFrame(
        {
            "Age": latent["age"],
            "Size": latent["size"],
            "NHG": np.take(GRADES, np.searchsorted(biology.cuts, latent["grade"])),
            "PAM50": np.take(SUBTYPES, latent["subtype"]),
        },
        samples,
    )
    spent = rng.standard_exponential(len(samples))  # cumulative hazard at the event
    return Truth(
        effects=biology.effects,
        pairs=biology.pairs,
        design=design,
        linear_predictor=predictor.rename("linear predictor"),
        event_time=biology.scale * (spent / np.exp(predictor)) ** (1 / SHAPE),
        labels=labels,
        programmes={
            "subtype": biology.members(*PROGRAMMES),
            "age": biology.members("ageing"),
            "proliferation": biology.members("proliferation"),
        },
        decoys=[*biology.members(*NEUTRAL), *biology.genes[biology.role < 0]],
        network=biology.edges,
        shape=SHAPE,
        scale=biology.scale,
    )


def _follow_up(biology: Biology, population: _Population) -> float:
    """Return the mean time to censoring, in days, that leaves the wanted share of events among reference patients."""
    latent = _latent(biology, population, REFERENCE, (biology.seed, 5))
    hazard = np.exp(_design(biology, latent) @ biology.effects.to_numpy())
    share = np.random.default_rng((biology.seed, 6)).uniform(*FOLLOW_UP, REFERENCE)

    def surplus(log_days):
        return population.event_rate - 1 + np.exp(-hazard * (np.exp(log_days) * share / biology.scale) ** SHAPE).mean()

    return float(np.exp(brentq(surplus, -50, 50)))


def _masked(labels: pd.DataFrame, missing: float, rng) -> pd.DataFrame:
    """Leave the share of each label empty, and a class that is left with one patient: a cohort may not hold it."""
    masked = labels.mask(rng.random(labels.shape) < missing)
    for column in ("NHG", "PAM50"):
        counts = masked[column].value_counts()
        masked[column] = masked[column].where(~masked[column].isin(counts.index[counts == 1]))
    return masked


# --- another platform -----------------------------------------------------------------------------------------


def _reseen(site: World, rng, shift, scale, saturation, missing_genes) -> World:
    """Return the site as log2 intensities: a background of 5, shift and scale by gene, a ceiling, fewer genes."""
    genes = site.biology.genes
    slope = 0.6 * np.exp(rng["scale"].normal(0, scale, len(genes)))
    level = 5 + rng["shift"].normal(0, shift, len(genes)) + slope * site.cohort.expression.astype(float)
    level = saturation - np.logaddexp(0, 2 * (saturation - level)) / 2  # smooth, so that ranks survive
    spared = genes.difference(site.biology.hazard_genes())
    unmeasured = spared[rng["genes"].permutation(len(spared))[: round(missing_genes * len(genes))]]
    expression = level.drop(columns=unmeasured).clip(lower=0).astype(np.float32)
    about = {**site.cohort.about, "expression": "log2 intensity, simulated"}
    return replace(site, cohort=replace(site.cohort, expression=expression, about=about))


# --- checks and marginals -------------------------------------------------------------------------------------


def _check(n, n_genes, noise, population: _Population) -> None:
    unknown = set(population.shares) - set(SUBTYPES)
    shares = list(population.shares.values())
    smallest = 2 * len(MODULES) + 6
    rules = {
        f"n is {n}; a planted cohort needs at least 20 patients": n >= 20,
        f"n_genes is {n_genes}; {len(MODULES)} modules and a background need at least {smallest}": n_genes >= smallest,
        f"noise is {noise}; give an SD in log2 units, 0 or more": noise >= 0,
        f"event_rate is {population.event_rate}; give a share between 0 and 1": 0 < population.event_rate < 1,
        f"missing is {population.missing}; give a share from 0 to below 1": 0 <= population.missing < 1,
        f"subtype_shares names {sorted(unknown)}; the subtypes are {', '.join(SUBTYPES)}": not unknown,
        f"subtype_shares are {shares}; give shares that add up to 1": _are_shares(shares),
    }
    _refuse(rules)


def _check_effects(**effects: float) -> None:
    _refuse({f"{name} is {value}; give a log hazard ratio": np.isfinite(value) for name, value in effects.items()})


def _check_platform(biology: Biology, shift, scale, saturation, missing_genes) -> None:
    spared = len(biology.genes) - len(biology.hazard_genes())
    lost = missing_genes * len(biology.genes)
    rules = {
        f"shift is {shift} and scale {scale}; give SDs, 0 or more": min(shift, scale) >= 0,
        f"saturation is {saturation}; give a positive number of log2 units": 0 < saturation < np.inf,
        f"missing_genes is {missing_genes}; give a share from 0 that leaves the hazard's genes and another ({spared} "
        f"of {len(biology.genes)} may go)": 0 <= lost < spared,
    }
    _refuse(rules)


def _are_shares(shares: list[float]) -> bool:
    return len(shares) > 0 and min(shares) >= 0 and bool(np.isclose(sum(shares), 1))


def _refuse(rules: dict[str, bool]) -> None:
    for sentence, kept in rules.items():
        if not kept:
            raise CohortError(f"planted: {sentence}.")


def marginals(cohort: Cohort, most_variable: int = 200) -> pd.Series:
    """Return what a cohort looks like, one number for each name, so that two cohorts can stand side by side.

    Event rate, median follow-up (reverse Kaplan-Meier) and C-index of age alone; age (years) and size (mm) as
    mean, SD and quartiles; shares of grades and subtypes; quartiles of the gene-gene correlation among the
    ``most_variable`` genes. A task that the cohort lacks is left out.
    """
    names = {task.name for task in cohort.tasks}
    parts = {"patients": len(cohort), "genes": cohort.expression.shape[1]}
    if cohort.survival_task is not None:
        parts |= _survival_marginals(cohort)
    for name in ("Age", "Size"):
        parts |= _number_marginals(name, cohort.clinical[name]) if name in names else {}
    for name in ("NHG", "PAM50"):
        parts |= _class_marginals(name, cohort.clinical[name]) if name in names else {}
    return pd.Series({**parts, **_expression_marginals(cohort.expression, most_variable)}, name=cohort.name)


def _survival_marginals(cohort: Cohort) -> dict[str, float]:
    time, event = cohort.outcome()
    known = ~np.isnan(event)
    parts = {
        "event rate": event[known].mean(),
        "median follow-up": KaplanMeierFitter().fit(time[known], 1 - event[known]).median_survival_time_,
    }
    if "Age" in cohort.clinical:
        seen = known & cohort.clinical["Age"].notna().to_numpy()
        age = cohort.clinical["Age"].to_numpy()[seen]
        died = event[seen] == 1
        parts["C-index of age"] = concordance_index_censored(died, time[seen], age)[0] if died.any() else np.nan
    return parts


def _number_marginals(name: str, values: pd.Series) -> dict[str, float]:
    quartiles = {f"{name} {q:.0%} quantile": values.quantile(q) for q in (0.25, 0.5, 0.75)}
    return {f"{name} mean": values.mean(), f"{name} SD": values.std(), **quartiles, **_absence(name, values)}


def _class_marginals(name: str, values: pd.Series) -> dict[str, float]:
    shares = values.value_counts(normalize=True).sort_index()
    return {**{f"{name} {label}": share for label, share in shares.items()}, **_absence(name, values)}


def _absence(name: str, values: pd.Series) -> dict[str, float]:
    return {f"{name} missing": values.isna().mean()}


def _expression_marginals(expression: pd.DataFrame, most_variable: int) -> dict[str, float]:
    chosen = expression[expression.std().nlargest(most_variable).index]
    correlation = chosen.corr().to_numpy()[np.triu_indices(chosen.shape[1], 1)]
    quantiles = {f"correlation {q:.0%} quantile": np.quantile(correlation, q) for q in (0.05, 0.25, 0.5, 0.75, 0.95)}
    return {"gene mean (median)": chosen.mean().median(), "gene SD (median)": chosen.std().median(), **quantiles}
