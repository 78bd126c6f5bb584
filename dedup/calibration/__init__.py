"""Measure which edits are found at which thresholds, and what false alarms they cost."""
