"""Build the list of search queries and normalise text."""
