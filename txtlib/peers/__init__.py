"""Peer methods, one file each, all behind ``fit(train, validation)`` and ``predict(cohort) -> Predictions``."""
