"""Results in few words, for pages and terminals; no torch, so that the command line stays quick."""

from collections.abc import Iterable, Mapping
from typing import Any


def stands_out(head: str, variant: str) -> bool:
    """Return whether a row belongs in an overview.

    Robustness has a row for each corruption and severity: there, the clean pictures and the mean of all.
    """
    return head != "robustness" or variant in ("clean", "corrupted")


def variant_in_words(head: str, variant: str) -> str:
    """Return such as "4 shots", or "zoom blur"."""
    if head == "few_shot":
        return f"{variant} shot" if variant == "1" else f"{variant} shots"
    return variant.replace("_", " ")


def notes_in_words(notes: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return names and values of notes, a note that holds several taken apart."""
    words = []
    for name, value in notes.items():
        if isinstance(value, Mapping):
            inner = ", ".join(f"{key.replace('_', ' ')} {_words(v)}" for key, v in value.items())
            words.append((name.replace("_", " "), inner))
        else:
            words.append((name.replace("_", " "), _words(value)))
    return words


def _words(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Iterable) and not isinstance(value, str):
        return " / ".join(map(_words, value))
    return str(value)
