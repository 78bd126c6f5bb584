"""Finished shards: how they are cut and packed, verified, subset and cleared of what must go."""
