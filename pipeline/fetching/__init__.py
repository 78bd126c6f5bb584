"""Fetch files from a web nobody vouches for, within limits and with manners."""
