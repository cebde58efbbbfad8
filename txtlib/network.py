"""Protein networks and gene vectors. PecanPy's import is repaired here, and nowhere else."""

import sys
import types


def import_pecanpy():
    """Import and return ``pecanpy.pecanpy`` on numpy 2.

    PecanPy 2.0.9 annotates with nptyping, which needs a name that numpy 2 dropped. The annotations are never
    evaluated, so an empty stand-in serves, and it goes away again after the import.
    """
    stand_in = types.ModuleType("nptyping")
    stand_in.__getattr__ = lambda name: _AnyHint
    known = sys.modules.get("nptyping")
    sys.modules["nptyping"] = stand_in
    try:
        from pecanpy import pecanpy
    finally:
        if known is None:
            del sys.modules["nptyping"]
        else:
            sys.modules["nptyping"] = known
    return pecanpy


class _Subscriptable(type):
    def __getitem__(cls, item):
        return cls


class _AnyHint(metaclass=_Subscriptable):
    """Stands for any type hint, subscripted or not."""
