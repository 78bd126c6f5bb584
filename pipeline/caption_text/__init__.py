"""Judge whether a caption describes an image."""
