"""What clinical tasks do to the attention of gene sets, over seeds, and the ledger's entry of claim C13.

The claim (Koo et al. 2025, bbaf628, Fig. S2): clinical tasks raise attention on genes of EMT and of TNF-alpha
signalling via NF-kB. A training gives one number for a set, so trainings are the sample, not their patients.
"""

from collections.abc import Collection, Iterable, Mapping

import numpy as np
import pandas as pd
from scipy import stats

from txtlib import ledger
from txtlib.interpret.plain import check_values
from txtlib.ledger import Entry

SETS = Mapping[str, Iterable[str]]
CLAIMED = {
    "HALLMARK_EPITHELIAL_MESENCHYMAL_TRANSITION": "EMT",
    "HALLMARK_TNFA_SIGNALING_VIA_NFKB": "TNF-alpha signalling via NF-kB",
}
NO_SETS = "the gene sets at hand hold neither EMT nor TNF-alpha signalling"
TOO_FEW = "too few of the model's genes are in the sets of EMT and of TNF-alpha signalling"
ONE_SEED = "one training of each arm has no spread; the claim is tested over seeds, and needs two or more"


def shares(arm: pd.DataFrame) -> pd.DataFrame:
    """Return attention received, (rows, G), in equal shares: 1 is what each of G genes would get if all got the same.

    Rows are seeds or patients, as from ``received_per_seed`` and ``received_table``; each sums to G.
    """
    return arm * arm.shape[1]


def paired_rise(multi: pd.DataFrame, single: pd.DataFrame) -> pd.DataFrame:
    """Return by how many equal shares each gene's attention is higher with clinical tasks, (S, G), paired by seed.

    Both arms are (S, G) as from ``received_per_seed``. Raises ValueError where seeds or genes are not the same.
    """
    if set(multi.index) != set(single.index) or set(multi.columns) != set(single.columns):
        raise ValueError("The two arms are paired by seed and gene; train both with the same seeds, on the same genes.")
    return shares(multi) - shares(single.loc[multi.index, multi.columns])


def set_shifts(rise: pd.DataFrame, gene_sets: SETS, min_size: int = 5, level: float = 0.95) -> pd.DataFrame:
    """Ask for each gene set whether attention rises on its genes more than on the others, over seeds.

    ``rise`` (S, G) is as from ``paired_rise``: a row per pair of trainings. Of each row one number is taken, the mean
    of a set's genes minus the mean of all other genes. Returns a row per set that has ``min_size`` of the genes and
    leaves one out, highest mean first, by set: size, mean over seeds in equal shares, low and high (a t interval over
    seeds), p (two-sided t-test that the mean is 0, n = S pairs of trainings, not adjusted for the number of sets) and
    n. low, high and p are NaN for one seed, and where all seeds have the same number. ValueError for values that are
    missing or infinite.
    """
    check_values(rise, "seed")
    genes = {name: rise.columns.isin(list(members)) for name, members in gene_sets.items()}
    kept = {name: inside for name, inside in genes.items() if min_size <= inside.sum() < rise.shape[1]}
    values = rise.to_numpy(float)
    rows = {name: _over_seeds(values[:, one].mean(1) - values[:, ~one].mean(1), level) for name, one in kept.items()}
    found = pd.DataFrame(rows, index=["mean", "low", "high", "p"]).T.rename_axis("set")
    found.insert(0, "size", [int(inside.sum()) for inside in kept.values()])
    return found.assign(n=len(rise)).sort_values("mean", ascending=False, kind="stable")


def _over_seeds(differences: np.ndarray, level: float) -> tuple[float, float, float, float]:
    """Return mean, low, high and p of one number per seed."""
    n, mean = len(differences), differences.mean()
    if n < 2 or np.ptp(differences) == 0:
        return mean, np.nan, np.nan, np.nan
    error = differences.std(ddof=1) / np.sqrt(n)
    reach = stats.t.ppf(0.5 + level / 2, n - 1) * error
    return mean, mean - reach, mean + reach, 2 * stats.t.sf(abs(mean) / error, n - 1)


def attention_entry(
    rise: pd.DataFrame,
    gene_sets: SETS,
    *,
    cohort: str,
    patients: int,
    events: int | None = None,
    learned: Collection[str] = ("any",),
    min_size: int = 5,
    note: str = "",
) -> Entry:
    """Return the entry of C13: attention rises more on the genes of both sets that the claim names than on others.

    ``rise`` is as from ``paired_rise``, on ``patients`` patients of one test part. It holds if both intervals over
    seeds lie above 0; it fails if one lies below 0, or within 0.02 of an equal share of 0, and so does the interval
    widened for two sets. ``learned`` names the clinical tasks that the networks have learned: without one, nothing is
    decided. Not attempted without these sets, and with a single seed.
    """
    sets = {name: gene_sets[name] for name in CLAIMED if name in gene_sets}
    found, wide = (set_shifts(rise, sets, min_size, level) for level in (0.95, 0.975))
    if found.empty or len(rise) < 2 or found["low"].isna().any():
        why = NO_SETS if not sets else TOO_FEW if found.empty else ONE_SEED
        return ledger.not_attempted("C13", cohort=cohort, why=why)
    names = {name: f"attention on genes of {CLAIMED[name]} against other genes" for name in found.index}
    dull = "" if learned else "undecided, since no clinical task was learned"
    return ledger.claim(
        "C13",
        {names[name]: found.loc[name, ["mean", "low", "high"]] for name in found.index},
        cohort=cohort,
        patients=patients,
        events=events,
        splits=1,
        widened={names[name]: wide.loc[name, ["low", "high"]] for name in found.index},
        undecided=[] if learned else list(names.values()),
        partial=len(found) < len(CLAIMED),
        note="; ".join(filter(None, [_without(found.index), dull, f"{len(rise)} pairs of trainings", note])),
    )


def _without(found: Iterable[str]) -> str:
    absent = [name for key, name in CLAIMED.items() if key not in found]
    return f"without {', '.join(absent)}" if absent else ""
