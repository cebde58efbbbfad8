"""A control: TxT on survival alone, trained for as long as TxT on all tasks.

Age is learned for hundreds of epochs and survival overfits after a few, so that a network stopped by its own validation
loss has seen far less training alone than together. If it does as well after as many epochs, its companions brought it
time, and nothing that they know.
"""

from dataclasses import replace

from txtlib.cohort import Cohort, CohortError
from txtlib.peers.networks import NetworkMethod
from txtlib.peers.txt import txt
from txtlib.predictions import Predictions
from txtlib.training import Trained


class TrainedAsLong:
    """TxT on the survival task, with the weights of the epoch at which TxT on all tasks would have been kept.

    Its own validation part chooses nothing: the last of these epochs is kept, whatever it scores. (TxT alone, as long,
    with its best epoch kept, needs no class: that is ``txt`` with ``patience`` equal to ``epochs``.) After ``fit``,
    ``epochs`` is their number, and ``together`` and ``trained`` are the two networks.
    """

    def __init__(self, seed: int, settings: dict):
        self.seed, self.settings = seed, settings

    def fit(self, train: Cohort, validation: Cohort) -> "TrainedAsLong":
        """Fit TxT on all tasks to learn the number of epochs, then on survival; CohortError without either."""
        if train.survival_task is None or len(train.tasks) < 2:
            raise CohortError(f"{train.name}: this control needs a survival task and another one; name both.")
        endpoint = train.survival_task.name
        self.together = txt(self.seed, **self.settings).fit(train, validation).trained
        self.epochs = self.together.best_epoch
        alone = {"tasks": (endpoint,), "select": endpoint, "epochs": self.epochs, "patience": self.epochs}
        self.trained = fit_to_the_end(txt(self.seed, **self.settings | alone), train, validation)
        return self

    def predict(self, cohort: Cohort) -> Predictions:
        """Answer survival alone."""
        return self.trained.predict(cohort)


def fit_to_the_end(method: NetworkMethod, train: Cohort, validation: Cohort) -> Trained:
    """Fit a network method and return the network as its last epoch left it, not the best one that ``fit`` keeps."""
    preprocessor = method.preprocessor(train)
    network = method.network(train, preprocessor)
    last = {}

    def keep(module, *_) -> None:
        if not module.training:  # an epoch ends with the validation part, so this is what the epoch left
            last.update({name: value.detach().clone() for name, value in module.state_dict().items()})

    hook = network.register_forward_hook(keep)
    try:
        trained = method.learn(network, train, validation, preprocessor).trained
    finally:
        hook.remove()
    trained.network.load_state_dict(last)
    return replace(trained, best_epoch=int(trained.history["epoch"].max()))


def trained_as_long(seed: int = 0, **settings) -> TrainedAsLong:
    """Return TxT on survival alone, trained as long as TxT with these settings is on all tasks."""
    return TrainedAsLong(seed, settings)
