"""Recipes that turn public downloads into cohort folders, networks and gene sets under ``data/raw``.

    from txtlib.sources import make
    make("metabric")                 # data/raw/metabric, for load_cohort("metabric")
    make("string", score=700)        # data/raw/networks/string_v12.csv.gz

The command line is ``make data COHORT=metabric``. Addresses, licences and citations are in ``data/sources.yml``.
"""

from txtlib.sources.registry import read_registry
from txtlib.sources.workshop import RECIPES, make

__all__ = ["RECIPES", "make", "read_registry"]
