"""A new cohort's expression brought to the scale of the training part, without a look at its labels.

A frozen model knows the training platform only. Each gene that both sides measured gets a rising map from the new
cohort's values to those of the training part, from expression alone; then comes the model's own ``Preprocessor``, which
fills the genes that are absent. What both maps assume is that the two cohorts hold the same patients but for the
platform: where the new one has more tumours of a kind, they take that difference away as well.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from txtlib.checkpoint import read, write
from txtlib.cohort import Cohort, CohortError, read_expression

MAPPING = "expression mapping"  # the kind of file that Mapping.save writes
HOWS = ("none", "zscore", "quantile")
LEVELS = 101  # quantiles of a gene: every hundredth patient
LEAST = 20  # patients with a value that a gene's map is fitted on, on either side
STATES = ("measured", "constant", "empty", "absent")


@dataclass(frozen=True)
class Mapping:
    """A rising map for each of G genes, fitted on two cohorts; see ``fit_mapping``. It maps one new patient as well.

    source (K, G) says how the new cohort's values lie, target (K, G) how the training part's do: mean and SD
    ("zscore"), LEVELS quantiles ("quantile"), or nothing ("none").
    """

    how: str
    genes: tuple[str, ...]
    source: np.ndarray
    target: np.ndarray

    def apply(self, cohort: Cohort) -> Cohort:
        """Return the cohort with the mapped genes only, (n, up to G) float32; labels and missing values stay.

        A value beyond all that the map was fitted on becomes, by "quantile", the training part's lowest or highest. The
        genes that a patient lacks are the preprocessor's to fill. Raises CohortError if there are none to map.
        """
        known = set(cohort.expression.columns)
        places = [place for place, gene in enumerate(self.genes) if gene in known]
        if not places:
            raise CohortError(
                f"{cohort.name} has none of the {len(self.genes)} genes of this mapping (first: {self.genes[0]}); "
                "bring its gene names to those of the cohort that the mapping was fitted on."
            )
        genes = [self.genes[place] for place in places]
        values = cohort.expression[genes].to_numpy(float)
        mapped = _MAPS[self.how](values, self.source[:, places], self.target[:, places]).astype(np.float32)
        return replace(cohort, expression=pd.DataFrame(mapped, cohort.samples, genes))

    def save(self, path: str | Path) -> None:
        """Write the mapping to one safetensors file, to lie beside the model's; OSError if it cannot be."""
        tensors = {"source": torch.from_numpy(self.source), "target": torch.from_numpy(self.target)}
        write(path, MAPPING, tensors, {"how": self.how, "genes": list(self.genes)})


def load_mapping(path: str | Path) -> Mapping:
    """Read back what ``Mapping.save`` wrote; ValueError for any other file."""
    tensors, about = read(path, MAPPING)
    return Mapping(about["how"], tuple(about["genes"]), *(tensors[name].numpy() for name in ("source", "target")))


def fit_mapping(train: Cohort, cohort: Cohort, how: str) -> Mapping:
    """Fit a map per gene from the expression of a new cohort to that of the training part; labels play no role.

    "none": values as they are, for what is on one scale already. "zscore": a gene's mean and SD in the new cohort
    become those of the training part. "quantile": its quantiles do, straight lines between them, and tied values take
    the mean of the levels that they cover; behind a ``Preprocessor`` with the rank scaler that is the patient's rank
    in the new cohort. A gene that is constant in the new cohort takes a constant.

    A gene with fewer than LEAST values on either side is left out: there the model is as blind as if it were not
    measured. One patient has no mean and no rank: fit on the cohort of the own laboratory, without labels, and apply
    that to each patient who comes. Raises CohortError where no gene can be mapped, ValueError for an unknown ``how``.
    """
    if how not in HOWS:
        raise ValueError(f"how is one of {', '.join(HOWS)}, not {how!r}.")
    least = 1 if how == "none" else LEAST
    shared = train.expression.columns[train.expression.columns.isin(cohort.expression.columns)]
    tables = [part.expression[shared] for part in (cohort, train)]
    genes = [gene for gene, n in np.minimum(*(table.notna().sum() for table in tables)).items() if n >= least]
    if not genes:
        raise CohortError(
            f"{cohort.name}: of {len(shared)} genes shared with {train.name}, none has {least} values in both "
            f"({len(cohort)} and {len(train)} patients); fit the mapping on a whole cohort of the new platform, with "
            "the gene names of the training part, and apply that to its patients one by one."
        )
    return Mapping(how, tuple(genes), *(_SUMMARIES[how](table[genes].to_numpy(float)) for table in tables))


def _nothing(values: np.ndarray) -> np.ndarray:
    return np.empty((0, values.shape[1]))


def _moments(values: np.ndarray) -> np.ndarray:
    varies = np.nanmax(values, 0) > np.nanmin(values, 0)  # the SD of equal numbers may come out as 1e-17
    return np.stack([np.nanmean(values, 0), np.where(varies, np.nanstd(values, 0), 0.0)])


def _quantiles(values: np.ndarray) -> np.ndarray:
    return np.nanquantile(values, np.linspace(0, 1, LEVELS), axis=0)


def _as_it_is(values: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    return values


def _zscore(values: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    stretch = np.divide(target[1], source[1], out=np.zeros(len(source[1])), where=source[1] > 0)
    return (values - source[0]) * stretch + target[0]


def _quantile(values: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    return np.stack([_one_gene(*columns) for columns in zip(values.T, source.T, target.T, strict=True)], 1)


def _one_gene(values: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    levels, tied = np.unique(source, return_inverse=True)
    return np.interp(values, levels, np.bincount(tied, target) / np.bincount(tied))


_SUMMARIES = {"none": _nothing, "zscore": _moments, "quantile": _quantiles}
_MAPS = {"none": _as_it_is, "zscore": _zscore, "quantile": _quantile}


def overlap(genes, cohort: Cohort) -> pd.Series:
    """Return what a cohort knows of each gene, by gene: measured, constant, empty (no value) or absent.

    ``overlap(preprocessor.genes, cohort).value_counts()`` counts them, those of no gene too. All but the measured ones
    tell patients nothing apart.
    """
    values = cohort.expression.reindex(columns=list(genes))
    told = np.where(values.max() > values.min(), "measured", np.where(values.notna().any(), "constant", "empty"))
    told = np.where(values.columns.isin(cohort.expression.columns), told, "absent")
    return pd.Series(pd.Categorical(told, STATES), values.columns, name=cohort.name)


def new_patients(path: str | Path) -> Cohort:
    """Read an expression table of patients without labels, one or many: what a saved model needs to predict.

    A row per patient, first column Sample, then genes; empty where missing. ``load_trained("model.safetensors")
    .predict(new_patients("patient.csv"))`` is all; between the two stands ``load_mapping("mapping.safetensors")
    .apply(...)`` if the patients come from another platform. Raises CohortError with the first bad cells.
    """
    expression = read_expression(Path(path))
    return Cohort(expression, pd.DataFrame(index=expression.index), (), {"name": Path(path).name})
