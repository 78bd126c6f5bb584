"""Find duplicates within the corpus and overlap with evaluation sets."""
