"""TxT behind the two calls that every method answers to: preprocessing, network and training in one."""

from txtlib.cohort import Cohort
from txtlib.hierarchical import sets_for
from txtlib.predictions import Predictions
from txtlib.preprocess import Preprocessor, fit_preprocessor
from txtlib.training import fit
from txtlib.variants import variant

PREPROCESSING = ("n_genes", "scaler", "n_times", "grid")
TRAINING = ("epochs", "patience", "batch_size", "learning_rate", "select", "precision")


class TxTMethod:
    """TxT on ``tasks`` (all of them, if none is named), from expression to answers.

    gene_sets {name: genes}, as ``read_gene_sets`` returns them, are those whose genes are chosen from; with ``sets``
    genes attend within them (txtlib/hierarchical.py; genes of none within blocks of at most ``rest``). All other
    ``settings`` go where their name belongs: to ``fit_preprocessor``, to ``fit``, and the rest to ``variant``.
    """

    def __init__(self, seed: int = 0, tasks: tuple[str, ...] = (), gene_sets=None, sets=False, rest=128, **settings):
        self.seed, self.tasks, self.gene_sets, self.sets, self.rest = seed, tasks, gene_sets or {}, sets, rest
        self.preprocessing = {name: settings.pop(name) for name in PREPROCESSING if name in settings}
        self.training = {name: settings.pop(name) for name in TRAINING if name in settings}
        self.network = {"variant": "product", **settings}

    def fit(self, train: Cohort, validation: Cohort) -> "TxTMethod":
        """Fit everything on the training part; the validation part chooses the epoch. Ctrl-C ends it at once."""
        listed = set().union(*self.gene_sets.values()) or None
        preprocessor = fit_preprocessor(train, gene_list=listed, **self.preprocessing)
        preprocessor = preprocessor.with_tasks(*self.tasks) if self.tasks else preprocessor
        network = variant(**self._network(preprocessor), seed=self.seed)
        parts = train, validation, preprocessor
        self.trained = fit(network, *parts, **self.training, seed=self.seed, progress=False)
        if self.trained.interrupted:
            raise KeyboardInterrupt  # half a training is no answer of this method
        return self

    def predict(self, cohort: Cohort) -> Predictions:
        """Answer the tasks for each patient."""
        return self.trained.predict(cohort)

    def _network(self, preprocessor: Preprocessor) -> dict:
        genes = list(preprocessor.genes)
        settings = {**self.network, "n_genes": len(genes), "outputs": preprocessor.outputs}
        return {**settings, "sets": sets_for(genes, self.gene_sets, self.rest)} if self.sets else settings
