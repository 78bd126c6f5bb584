"""Evaluation sets: read, index, and find what of them stands in the corpus."""
