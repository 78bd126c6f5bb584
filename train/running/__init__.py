"""One run: its steps, records, checkpoints and end."""
