"""The thin library under the TxT book. Import from its modules: ``from txtlib.model import TxT``."""

__version__ = "0.1.0"
