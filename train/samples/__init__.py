"""Samples of any source: where they lie, in what order they are read, how they are decoded."""
