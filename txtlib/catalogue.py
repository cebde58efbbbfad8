"""The methods of the benchmark, by group, as chapters 07 and 08 run them."""

import importlib
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd

from txtlib.benchmark import Method
from txtlib.ledger import published_rows
from txtlib.network import read_gene_sets
from txtlib.peers import (
    autosurv,
    beside,
    boosting,
    centroid,
    coxnet,
    deepgene,
    fmap,
    forest,
    hazards,
    mlp,
    omiembed,
    pca,
    ridge,
    survconvmixer,
    svm,
    tgem,
    txt,
)
from txtlib.peers.floors import (
    SPACE_CLINICAL_AND_GENES,
    clinical_and_genes,
    clinical_cox,
    random_draw,
    ridge_age_cox,
    trivial,
)
from txtlib.peers.permuted import coxnet_permuted, txt_permuted
from txtlib.peers.published import as_published
from txtlib.planted import planted

SURVIVAL, CLASSES = {"kinds": ("survival",)}, {"kinds": ("classification",)}
EACH = {"joint": False}  # one fit for each task
TXT, OMIEMBED = "TxT, one task", "OmiEmbed, one task"

# what the article's tables call a method, where it stands in them: name there, and one task or many
PUBLISHED = {
    "SVM": ("SVM", "STL"),
    "random forest": ("RF", "STL"),
    "MLP": ("MLP", "STL"),
    OMIEMBED: ("OmiEmbed", "STL"),
    "T-GEM": ("T-GEM", "STL"),
    "AutoSurv-like": ("AutoSurv", "STL"),
    "SurvConvMixer-like": ("SurvConvMixer", "STL"),
    "CNN+FMAP-like": ("CNN+FMAP", "STL"),
    TXT: ("TxT", "STL"),
    "OmiEmbed, all tasks": ("OmiEmbed", "MTL"),
    "TxT, all tasks": ("TxT", "MTL"),
}
MEASURES = {
    "c_index": "Harrell's C",
    "ibs": "integrated Brier score",
    "accuracy": "accuracy",
    "f1_macro": "macro F1",
    "mae_years": "mean absolute error",
    "mae_mm": "mean absolute error",
    "spearman": "Spearman",
}
NOT_RIVALS = (  # rows that are there to be beaten: no rival, and no form that could win
    "TxT without expression",
    "TxT on permuted labels",
    "elastic net on permuted labels",
    "CNN on permuted pixels",
    "DeepGene, shuffled genes",
    "TxT, random vectors",
    "TxT, as published",
)
NEED_PATHWAYS = ("AutoSurv-like", "AutoSurv-like, clinical", "SurvConvMixer-like")

ABOUT = {  # a few words on each
    "constant": "median, majority, Kaplan-Meier curve of the training part",
    "random": "a draw from the training labels for each patient",
    "age alone": "Cox regression on the patient's age",
    "clinical Cox": "Cox regression on clinical columns",
    "clinical and genes": "Cox regression on clinical columns, elastic net on genes beside them",
    "ridge age, then Cox": "age as a ridge reads it from the genes, then Cox regression",
    "SVM": "support vectors, one machine for each kind of task",
    "random forest": "500 trees, random survival forest for survival",
    "MLP": "TxT's own head on the genes, no transformer",
    "ridge": "linear, squared penalty",
    "PCA": "a linear model on principal components",
    "gradient boosting": "small trees, one after another",
    "elastic net Cox": "Cox regression that selects genes",
    "nearest centroid": "the nearest shrunken class mean",
    "DeepSurv": "Cox regression by a network",
    "LogisticHazard": "a hazard for each interval of time, by a network",
    "DeepHit": "a probability for each interval of time, by a network, with a ranking loss",
    "TxT, one task": "the transformer with expression as position, N-MTLR for survival",
    "TxT, all tasks": "the same, tasks together by PCGrad",
    "OmiEmbed, one task": "variational autoencoder, then a head on its code",
    "OmiEmbed, all tasks": "the same, heads of all tasks together",
    "OmiEmbed, GradNorm": "the same, tasks balanced by the lengths of their gradients",
    "T-GEM": "a transformer whose genes are tokens of one number each",
    "AutoSurv-like": "autoencoder along pathways, then a head",
    "AutoSurv-like, clinical": "the same, clinical columns beside the code",
    "SurvConvMixer-like": "pathways as an image, convolution mixers",
    "CNN+FMAP-like": "genes laid out as an image by their correlation, a small Inception network",
    "DeepGene-like": "convolutions along the genes, then a small transformer",
    "DeepGene-like, clustered": "the same, genes in the order of a clustering",
    "TxT, ranked expression": "expression as ranks among the training patients",
    "TxT, per layer": "strengths c_h of its own in each layer",
    "TxT, full rank": "expression through a small network, then queries and keys of its own",
    "TxT, fourier": "the same on sines and cosines of expression",
    "TxT, value token": "expression is in the gene's vector too",
    "TxT, chosen form": "which of these forms, as the validation part says",
    "TxT beside the clinic": "a regression on clinical columns, to which the genes may add",
    "TxT without expression": "every patient is the same sentence",
    "TxT on permuted labels": "trained on the labels of other patients",
    "elastic net on permuted labels": "trained on the labels of other patients",
    "CNN on permuted pixels": "the image without its order",
    "DeepGene, shuffled genes": "the genes in a random order",
    "TxT, random vectors": "gene vectors drawn at random",
    "TxT, as published": "findings D1 to D5, D7 and D8 of the released code at once",
}


def catalogue(
    clinical: Iterable[str],
    genes: Mapping,
    curves: Mapping,
    training: Mapping,
    shape: Mapping,
    network=None,
    follow_up: float | None = None,
    changes: Mapping[str, dict] | None = None,
) -> dict[str, list[Method]]:
    """Return every method of the benchmark, {group: methods}; those that need pathways are there if there are any.

    clinical are the columns of clinical Cox regression; genes the settings n_genes and gene_sets, equal for all;
    curves n_times and grid, for all with N-MTLR; training epochs, patience and batch_size, and shape width, layers
    and heads, for TxT and its variants, the first three for every network that trains as TxT does. ``network`` is
    the protein network of TxT's gene vectors. ``follow_up`` is the longest time of all patients, which the released
    code looks at (D7). ``changes`` {start of names: settings} come on top. Raises ValueError for a change of no method.
    """
    nets = {**genes, **curves, **training}
    ours = {**nets, **shape, "network": network}
    groups = {
        "floors": _floors(list(clinical), dict(genes)),
        "classic": _classic(dict(genes), nets),
        "of the article": _of_the_article(list(clinical), dict(genes), dict(curves), nets, ours),
        "variants of TxT": _variants(list(clinical), ours),
        "controls": _controls(dict(genes), nets, ours),
        "the released code": _released(ours, follow_up),
    }
    if not genes.get("gene_sets"):
        groups = {name: [one for one in group if one.name not in NEED_PATHWAYS] for name, group in groups.items()}
    return _changed(groups, changes or {})


def _floors(clinical: list[str], genes: dict) -> list[Method]:
    with_genes = {**genes, "columns": clinical}
    return [
        Method("constant", trivial),
        Method("random", random_draw),
        Method("age alone", clinical_cox, {"columns": ["Age"]}, **SURVIVAL),
        Method("clinical Cox", clinical_cox, {"columns": clinical}, **SURVIVAL),
        Method("clinical and genes", clinical_and_genes, with_genes, SPACE_CLINICAL_AND_GENES, **SURVIVAL),
        Method("ridge age, then Cox", ridge_age_cox, genes, **SURVIVAL),
    ]


def _classic(genes: dict, nets: dict) -> list[Method]:
    return [
        Method("SVM", svm.svm, genes, svm.SPACE, **EACH),
        Method("random forest", forest.forest, genes, forest.SPACE, **EACH),
        Method("MLP", mlp.mlp, nets, mlp.SPACE, **EACH),
        Method("ridge", ridge.ridge, genes, ridge.SPACE, **EACH),
        Method("PCA", pca.pca, genes, pca.SPACE, **EACH),
        Method("gradient boosting", boosting.boosting, genes, boosting.SPACE, **EACH),
        Method("elastic net Cox", coxnet.coxnet, genes, coxnet.SPACE, **SURVIVAL),
        Method("nearest centroid", centroid.centroid, genes, centroid.SPACE, **CLASSES, **EACH),
        Method("DeepSurv", hazards.deep_surv, genes, hazards.SPACE_DEEP_SURV, **SURVIVAL),
        Method("LogisticHazard", hazards.logistic_hazard, genes, hazards.SPACE_LOGISTIC_HAZARD, **SURVIVAL),
        Method("DeepHit", hazards.deep_hit, genes, hazards.SPACE_DEEP_HIT, **SURVIVAL),
    ]


def _of_the_article(clinical: list[str], genes: dict, curves: dict, nets: dict, ours: dict) -> list[Method]:
    with_clinical, in_clusters = {**genes, "clinical": clinical}, {**nets, "order": "clustered"}
    omi = {**genes, **curves}
    gradnorm = {**omi, "weighting": "gradnorm"}
    return [
        Method(TXT, txt.txt, ours, txt.SPACE, **EACH),
        Method("TxT, all tasks", txt.txt, {**ours, "select": "all"}, txt.SPACE),
        Method(OMIEMBED, omiembed.OmiEmbed, omi, omiembed.SPACE, **EACH),
        Method("OmiEmbed, all tasks", omiembed.OmiEmbed, omi, omiembed.SPACE),
        Method("OmiEmbed, GradNorm", omiembed.OmiEmbed, gradnorm, omiembed.SPACE),
        Method("T-GEM", tgem.tgem, nets, tgem.SPACE, **EACH),
        Method("AutoSurv-like", autosurv.AutoSurv, genes, autosurv.SPACE, **EACH),
        Method("AutoSurv-like, clinical", autosurv.AutoSurv, with_clinical, autosurv.SPACE, **SURVIVAL),
        Method("SurvConvMixer-like", survconvmixer.survconvmixer, nets, survconvmixer.SPACE, **EACH),
        Method("CNN+FMAP-like", fmap.fmap_cnn, nets, fmap.SPACE, **EACH),
        Method("DeepGene-like", deepgene.deepgene, nets, deepgene.SPACE, **EACH),
        Method("DeepGene-like, clustered", deepgene.deepgene, in_clusters, deepgene.SPACE, **EACH),
    ]


def _variants(clinical: list[str], ours: dict) -> list[Method]:
    names = ("per layer", "full rank", "fourier", "value token")
    ranked = Method("TxT, ranked expression", txt.txt, {**ours, "scaler": "rank"}, txt.SPACE, **EACH)
    beside_clinic = {**ours, "columns": clinical}
    return [
        ranked,
        *(Method(f"TxT, {name}", txt.txt, {**ours, "variant": name}, txt.SPACE, **EACH) for name in names),
        Method("TxT, chosen form", txt.txt, ours, txt.SPACE_FORMS, **EACH),
        Method("TxT beside the clinic", beside.txt_beside_clinic, beside_clinic, txt.SPACE_FORMS, **SURVIVAL),
    ]


def _controls(genes: dict, nets: dict, ours: dict) -> list[Method]:
    found = [
        Method("TxT without expression", txt.txt, {**ours, "variant": "none"}, txt.SPACE, **EACH),
        _untuned(Method("TxT on permuted labels", txt_permuted, ours, txt.SPACE, **EACH)),
        _untuned(Method("elastic net on permuted labels", coxnet_permuted, genes, coxnet.SPACE, **SURVIVAL)),
        Method("CNN on permuted pixels", fmap.fmap_cnn, {**nets, "pixels": "permuted"}, fmap.SPACE, **EACH),
        Method("DeepGene, shuffled genes", deepgene.deepgene, {**nets, "order": "shuffled"}, deepgene.SPACE, **EACH),
    ]
    if ours["network"] is not None:
        found.append(Method("TxT, random vectors", txt.txt, {**ours, "network": None}, txt.SPACE, **EACH))
    return found


def _untuned(method: Method) -> Method:
    """Return the method with its defaults: tuning would look at the validation part's true labels."""
    return replace(method, settings=method.tried(1)[0], space={})


def _released(ours: dict, follow_up: float | None) -> list[Method]:
    space = {"learning_rate": txt.SPACE["learning_rate"]}  # the released 0.0001 needs more steps than a small run has
    return [Method("TxT, as published", as_published, {**ours, "follow_up": follow_up, "readout": "flatten"}, space)]


def _changed(groups: dict[str, list[Method]], changes: Mapping[str, dict]) -> dict[str, list[Method]]:
    names = [method.name for group in groups.values() for method in group] + list(NEED_PATHWAYS)
    unknown = [start for start in changes if not any(name.startswith(start) for name in names)]
    if unknown:
        raise ValueError(f"No method's name begins with {unknown[0]!r}; take a name of the benchmark's table.")
    return {name: [_with(method, changes) for method in group] for name, group in groups.items()}


def _with(method: Method, changes: Mapping[str, dict]) -> Method:
    found = [settings for start, settings in changes.items() if method.name.startswith(start)]
    return replace(method, settings={**method.settings, **{k: v for one in found for k, v in one.items()}})


def published_numbers() -> pd.DataFrame:
    """Return the published numbers of methods of this benchmark: id, claim, cohort, method, task, measure, value.

    method and measure are called as in the benchmark's table. From data/published.csv; ValueError without it.
    """
    ours = {(name, setting): method for method, (name, setting) in PUBLISHED.items()}
    rows = pd.DataFrame(published_rows().values()).astype({"value": float})
    names = [ours.get(pair) for pair in zip(rows["method"], rows["setting"], strict=True)]
    found = rows.assign(method=names, measure=rows["metric"].map(MEASURES)).dropna(subset="method")
    return found[["id", "claim", "cohort", "method", "task", "measure", "value"]]


# --- what a notebook's parameters name ----------------------------------------------------------------------------


def sets_named(name: str) -> dict[str, list[str]]:
    """Return the gene sets that a name stands for: those of the planted cohort, a GMT file's, or none for ""."""
    if name == "planted":
        return {module: list(genes) for module, genes in planted().modules.items()}
    return read_gene_sets(name) if name else {}


def network_named(name: str) -> str | list | None:
    """Return TxT's setting ``network`` for a name: the planted network as rows, a file's name as it is, None for ""."""
    return planted().network.to_numpy().tolist() if name == "planted" else name or None


def own_method(place: str) -> Method:
    """Return a reader's method from ``path/to/file.py:Name``, tuned over the file's SPACE if it has one.

    Its KINDS, if the file has them, are those of the tasks that it answers; the default is survival. ValueError if
    there is no such file, nothing of that name in it, or another module of the file's name.
    """
    path, _, name = place.rpartition(":")
    file = Path(path).resolve()
    if not file.is_file():
        raise ValueError(f"No file {path!r} for a method of your own; write it as path/to/file.py:Name.")
    module = _imported(file)
    if not hasattr(module, name):
        raise ValueError(f"{file.name} has no {name!r}; write the place of your method as path/to/file.py:Name.")
    kinds = tuple(getattr(module, "KINDS", ("survival",)))
    return Method(name, getattr(module, name), space=getattr(module, "SPACE", {}), kinds=kinds)


def _imported(file: Path):
    """Import a file under its own name, from a folder that other processes look into too.

    ValueError where Python knows another module by that name: a name is all that other processes get.
    """
    if "." in file.stem:
        raise ValueError(f"{file.name} cannot be imported, since its name has a second dot; give it another name.")
    sys.path.insert(0, str(file.parent))
    importlib.invalidate_caches()
    module = importlib.import_module(file.stem)
    place = getattr(module, "__file__", None)
    if place is None or Path(place).resolve() != file:
        raise ValueError(f"{file.name}: Python has another module {file.stem!r} already; give the file another name.")
    return module
