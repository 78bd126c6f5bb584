"""Embeddings of pictures by a model, and the search among them."""
