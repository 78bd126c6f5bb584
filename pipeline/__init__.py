"""Curate image-text pairs: ingest, match, filter, balance, download and shard."""

__version__ = "0.1.0"
