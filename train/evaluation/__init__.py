"""Measure a finished model: zero-shot, on what its embeddings hold, and against a supervised baseline."""
