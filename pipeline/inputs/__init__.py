"""Read image references from crawls, tables and shards, each pair once."""
