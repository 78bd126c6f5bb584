"""Fetch, decode and store pictures from a web nobody vouches for."""
