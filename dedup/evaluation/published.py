"""Caption templates and class names of the 27 evaluation sets of CLIP (table 9), ready to use.

They are parameters of the published experiments: `prompts = "food101"` in `evalsets.toml` takes a set's
templates, `names = "imagenet"` the words for its classes. See NOTICE.md for where they were published.
"""

import itertools
import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from importlib import resources

_CRAFTS = "(painting|sculpture|sketch|tattoo|rendition|drawing|doodle) of"
_OBJECTS = "(a|the) (plastic|toy|embroidered|cartoon|plushie|origami) {label}."
_VIEWS = "(blurry |black and white |low contrast |high contrast |bad |good |)"
_ART = (f"a {_CRAFTS} (a|the) {{label}}.", _OBJECTS, "(a|the) {label} in a video game.", "(art|graffiti) of (a|the) {label}.")  # fmt: skip
_CIFAR = (f"a {_VIEWS}photo of (a|the) {{label}}.", "a photo of (a|the) (small|big) {label}.")
_IMAGENET = (
    "(itap|a rendering) of (a|the) {label}.",
    "(itap|a photo) of my {label}.",
    "a photo of (many|one) {label}.",
    "a (bad|blurry|bright|cropped|good|dark|close-up|pixelated|low resolution|jpeg corrupted|black and white) photo of (a|the) {label}.",
    "a photo of (a|the) (hard to see|clean|dirty|cool|large|nice|weird|small) {label}.",
    "a photo of (a|the) {label}.",
    *_ART,
)

_PATTERNS: Mapping[str, tuple[str, ...]] = {
    "birdsnap": ("a photo of a {label}, a type of bird.",),
    "caltech101": ("a photo of (a|the) {label}.", *_ART),
    "cifar10": _CIFAR,
    "cifar100": _CIFAR,
    "clevr_counts": ("a photo of {label} objects.",),
    "country211": (
        "a photo i took (in|while visiting) {label}.",
        "a photo (from my home country of|from my visit to|showing the country of) {label}.",
    ),
    "dtd": ("a photo of (a|the) {label} (texture|pattern|thing|object).",),
    "eurosat": ("a centered satellite photo of (|a |the ){label}.",),
    "fer2013": (
        "a photo of a {label} looking face.",
        "a photo of a face (showing the emotion:|looking) {label}.",
        "a face that looks {label}.",
        "they look {label}.",
        "look at how {label} they are.",
    ),
    "fgvc_aircraft": ("a photo of (a|the) {label}, a type of aircraft.",),
    "flowers102": ("a photo of a {label}, a type of flower.",),
    "food101": ("a photo of {label}, a type of food.",),
    "gtsrb": ('a (zoomed in|centered|close up) photo of a "{label}" traffic sign.',),
    "hateful_memes": ("a {label}.",),
    "imagenet": _IMAGENET,
    "kinetics700": (
        "a (photo|video|example|demonstration) of (|a person ){label}.",
        "a (photo|video|example|demonstration) of a person "
        "(using|doing|during|performing|practicing) {label}.",
    ),
    "kitti": ("{label}",),
    "mnist": ('a photo of the number: "{label}".',),
    "pcam": ("this is a photo of {label}",),
    "pets": ("a photo of a {label}, a type of pet.",),
    "resisc45": ("(satellite|aerial) (imagery|photo|view) of (|a |the ){label}.",),
    "sst2": ("a {label} review of a movie.",),
    "stanford_cars": (
        "a photo of (a|the|my) {label}.",
        "i love my {label}!",
        "a photo of my (dirty|clean|new|old) {label}.",
    ),
    "stl10": ("a photo of (a|the) {label}.",),
    "sun397": ("a photo of (a|the) {label}.",),
    "ucf101": (
        "a (photo|video|example|demonstration) of (a|the) person "
        "(|using |doing |during |performing |practicing ){label}.",
    ),
    "voc2007": ("a photo of a {label}.",),
}  # fmt: skip

_RULES: Mapping[str, Callable[[str], str]] = {
    "fgvc_aircraft": lambda name: name,
    "sun397": lambda name: re.sub("[_/]+", " ", name).strip(),
    "ucf101": lambda name: re.sub("(?<=[a-z])(?=[A-Z])", " ", name),
}

SETS = tuple(_PATTERNS)
"""Sets whose templates are known, and `prompts` may be."""

TEMPLATES = ("plain", "ensemble80", *SETS)
"""What `prompts` may name: the bare label, ImageNet's 80 templates by their other name, or a set."""


def templates(name: str) -> tuple[str, ...]:
    """Return the caption templates of that name, each with {label} in it; `name` is one of TEMPLATES."""
    if name == "plain":
        return ("{label}",)
    patterns = _PATTERNS["imagenet" if name == "ensemble80" else name]
    return tuple(template for pattern in patterns for template in expand(pattern))


def expand(pattern: str) -> list[str]:
    """Return every text that `pattern` stands for: (a|b) is one of a and b."""
    pieces = [piece.split("|") for piece in re.split(r"[()]", pattern)]
    return ["".join(words) for words in itertools.product(*pieces)]


def named_sets() -> tuple[str, ...]:
    """Return the sets whose classes have published names that their files do not hold."""
    return tuple(sorted({*_names(), *_RULES}))


def class_label(evalset: str, class_name: str) -> str | None:
    """Return what the paper calls a class, several names parted by "|"; None if it is not known.

    Args:
        evalset: one of `named_sets`.
        class_name: as in the set's own files: a WordNet id, a folder, a country code, a number from 0.
    """
    if evalset in _RULES:
        return _RULES[evalset](class_name)
    names = _names()[evalset]
    if class_name in names:
        return names[class_name]
    by_number = class_name.isascii() and class_name.isdecimal() and "1" not in names
    if by_number and int(class_name) < len(names):
        return list(names.values())[int(class_name)]
    return None


@cache
def _names() -> dict[str, dict[str, str]]:
    file = resources.files("dedup.evaluation").joinpath("published_names.json")
    names: dict[str, dict[str, str]] = json.loads(file.read_text(encoding="utf-8"))
    return names
