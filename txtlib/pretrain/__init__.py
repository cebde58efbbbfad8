"""Networks that learn from expression alone before they see a label: GexBERT-like and TifBERT-like."""
