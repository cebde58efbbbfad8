"""Why may other tasks help survival? Arms of TxT that each take one possible reason away (chapter 08).

All see identical patients, so nothing of a difference comes from who has which label.
"""

from dataclasses import replace

from txtlib.benchmark import Method
from txtlib.peers.as_long import trained_as_long
from txtlib.peers.permuted import permuted_task
from txtlib.peers.published import as_published
from txtlib.peers.txt import txt

ALONE, LONG = "TxT, survival alone", "TxT, survival alone, as long"
SUMMED = ("TxT, survival alone, summed hazard", "TxT, all tasks, summed hazard")


def companions(many: Method, tasks: list[str], endpoint: str) -> list[Method]:
    """Return the arms beside ``many``, TxT on all ``tasks``: its default settings, none of them tuned.

    Survival alone, and survival alone for as many epochs; for each other task, all tasks with its labels permuted, and
    all without it; and both alone and together ranked as the released code ranks (D5). Raises ValueError where
    ``endpoint`` is not a task, or the only one.
    """
    others = [task for task in tasks if task != endpoint]
    if len(others) != len(tasks) - 1 or not others:
        raise ValueError(f"The arms need a survival task among others; {endpoint!r} is not one of {', '.join(tasks)}.")
    alone = {"tasks": [endpoint], "select": endpoint}
    summed = {"switches": ["D5"]}
    arms = {
        ALONE: (txt, alone),
        LONG: (trained_as_long, {}),
        **{f"TxT, {task} permuted": (permuted_task, {"task": task}) for task in others},
        **{f"TxT, all but {task}": (txt, _without(task, tasks)) for task in others if len(others) > 1},
        SUMMED[0]: (as_published, alone | summed),
        SUMMED[1]: (as_published, summed),
    }
    return [_arm(many, name, *arm) for name, arm in arms.items()]


def _without(task: str, tasks: list[str]) -> dict:
    return {"tasks": [one for one in tasks if one != task]}


def _arm(many: Method, name: str, factory, settings: dict) -> Method:
    return replace(many, name=name, factory=factory, settings={**many.tried(1)[0], **settings}, space={})
