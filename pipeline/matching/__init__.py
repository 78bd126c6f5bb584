"""Find the queries that stand in captions."""
