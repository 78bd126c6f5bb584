"""What one table of `evalsets.toml` says: where a set lies, how to read it, when a picture meets it."""

import re
import tomllib
from collections.abc import Mapping
from string import Formatter
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field, field_validator

from dedup.evaluation import published
from pipeline.errors import ConfigError, InputError
from pipeline.runtime import storage
from pipeline.runtime.settings import Settings, read_settings

Format = Literal[
    "folder", "zip", "tar", "webdataset", "parquet", "idx", "cifar", "coco", "karpathy", "flickr"
]
FORMATS: tuple[Format, ...] = get_args(Format)


def _plain_name(name: str) -> str:
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise ValueError("letters, digits, '_', '-' and '.', not first a '-' or '.'")
    return name


PlainName = Annotated[str, AfterValidator(_plain_name)]
"""A name that can stand in tables and in the paths of files."""


class EvalSet(Settings):
    """An evaluation set: where it lies, how it is read, and how its classes are put into words."""

    name: PlainName
    """name of the set in tables and reports"""
    path: str
    """file, folder or pattern of files; relative to the TOML file that names it"""
    format: Literal["auto", Format] = "auto"
    """how the set is laid out; auto: by its content"""
    split: tuple[str, ...] = ()
    """splits to read, one or a list; default: all"""
    pattern: str = ""
    """folder, zip, tar: regular expression for names, with groups `label` and `split` where there are such"""
    images: str = ""
    """coco, karpathy, flickr: folder, zip or tar with the pictures; without it, captions alone are compared"""
    image_column: str = ""
    """parquet: column of pictures; default: found by its type"""
    label_column: str = ""
    """parquet: column of classes; default: found by the file's description or name"""
    caption_column: str = ""
    """parquet: column of captions; default: found by its name"""
    transposed: bool = False
    """idx: rows and columns are exchanged, as in EMNIST"""
    labels: dict[str, str] = Field(default_factory=dict)
    """class to readable name, or a list of names by number; default: the class with "_" and "-" as spaces"""
    names: str = ""
    """set of CLIP's paper whose names for the classes are used, such as imagenet; `labels` come first"""
    prompts: tuple[str, ...] = Field(("a photo of a {label}.",), min_length=1)
    """caption templates, each with {label} in it, or the name of published ones: plain, ensemble80 or a set of
    CLIP's paper such as food101; default: the set's own where it has some"""
    train: dict[str, Any] = Field(default_factory=dict)
    """pictures that probes learn from: a split of the set, a list of them, or a table of what differs for them"""
    validation: dict[str, Any] = Field(default_factory=dict)
    """pictures that probes are tuned on, said the same way; default: some of those of `train`"""
    max_distance: int = Field(31, ge=0, le=63)
    """differing PDQ bits, of 256, up to which a corpus picture counts as a copy"""
    min_similarity: float | None = Field(None, gt=0, le=1)
    """cosine of embeddings from which a corpus picture counts as a copy; default: not compared"""
    min_text_overlap: float = Field(0.7, gt=0, le=1)
    """share of a caption's runs of four words from which a corpus caption counts as a copy"""

    @field_validator("split", mode="before")
    @classmethod
    def _one_or_more_splits(cls, split: object) -> object:
        return (split,) if isinstance(split, str) else split

    @field_validator("train", "validation", mode="before")
    @classmethod
    def _split_or_differences(cls, part: object) -> object:
        return part if isinstance(part, dict) else {"split": part}

    @field_validator("pattern")
    @classmethod
    def _expression_with_groups(cls, pattern: str) -> str:
        try:
            groups = set(re.compile(pattern).groupindex)
        except re.error as error:
            raise ValueError(f"a regular expression ({error})") from error
        if pattern and not groups & {"label", "split"}:
            raise ValueError("a group (?P<label>...) or (?P<split>...) in it")
        return pattern

    @field_validator("labels", mode="before")
    @classmethod
    def _names_by_number(cls, labels: object) -> object:
        return dict(_numbered(labels)) if isinstance(labels, list | tuple) else labels

    @field_validator("names")
    @classmethod
    def _names_are_known(cls, names: str) -> str:
        if names and names not in published.named_sets():
            raise ValueError(f"one of: {', '.join(published.named_sets())}")
        return names

    @field_validator("prompts", mode="before")
    @classmethod
    def _templates_by_name(cls, prompts: object) -> object:
        if not isinstance(prompts, str):
            return prompts
        if prompts not in published.TEMPLATES:
            raise ValueError(f"a list of templates, or one of: {', '.join(published.TEMPLATES)}")
        return published.templates(prompts)

    @field_validator("prompts")
    @classmethod
    def _templates_with_label(cls, prompts: tuple[str, ...]) -> tuple[str, ...]:
        for prompt in prompts:
            if not is_template(prompt):
                raise ValueError(f"{{label}} and no other field in every template, not {prompt!r}")
        return prompts

    @property
    def where(self) -> str:
        """What messages call the set."""
        return f"evaluation set {self.name}: {self.path}"

    def learns_from(self, part: Literal["train", "validation"]) -> "EvalSet | None":
        """Return the pictures that probes learn from, or are tuned on; None where the set names none.

        Raises:
            ConfigError: if what it says of them is no setting of a set.
        """
        differences = getattr(self, part)
        if not differences:
            return None
        own = self.model_dump(exclude_unset=True, exclude={"train", "validation"})
        return read_settings(EvalSet, {**own, **differences}, where=f"{self.where}: {part}")

    def label(self, class_name: str) -> str:
        """Return the readable name of a class; a name with a space in it is readable as it is."""
        if class_name in self.labels:
            return self.labels[class_name]
        if self.names and (label := published.class_label(self.names, class_name)):
            return label
        plain = class_name if " " in class_name else re.sub("[_-]+", " ", class_name).strip()
        return plain or class_name


def is_template(text: str) -> bool:
    """Return whether {label} is the one field of `text`."""
    try:
        fields = {field for _, field, _, _ in Formatter().parse(text) if field is not None}
    except ValueError:
        return False
    return fields == {"label"}


def read_evalsets(path: str) -> tuple[EvalSet, ...]:
    """Read the sets of a TOML file, in the order they stand there.

    Raises:
        StorageError: the file cannot be read.
        InputError: it is not TOML, or names no set.
        ConfigError: one line that names the file and every wrong key.
    """
    try:
        tables = tomllib.loads(storage.read_bytes(path).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a TOML file: {error}") from error
    if not tables:
        raise InputError(f"{path} names no evaluation set, expected one table per set: [NAME]")
    return tuple(_read_evalset(path, name, table) for name, table in tables.items())


def _read_evalset(path: str, name: str, table: Any) -> EvalSet:
    where = f"{path}: {name}"
    if not isinstance(table, dict):
        raise ConfigError(f"{where} is {table!r}, expected a table: [{name}]")
    if "name" in table:
        raise ConfigError(f"{where}.name is not a setting: the table's own name is the set's")
    evalset = read_settings(EvalSet, {"name": name, **table}, where=where)
    found = _located(evalset.model_dump(exclude_unset=True), storage.parent(path))
    for part in ("train", "validation"):
        if differences := found.get(part):
            if surplus := {"name", "train", "validation"} & differences.keys():
                raise ConfigError(
                    f"{where}.{part} has {', '.join(sorted(surplus))}, expected what says where and how "
                    "its pictures are read, such as path and split"
                )
            found[part] = _located(differences, storage.parent(path))
    located = evalset.model_copy(update=found)
    located.learns_from("train")
    located.learns_from("validation")
    return located


def _located(settings: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """Return `settings` with paths that do not depend on where the file lies."""
    paths = {
        key: storage.join(folder, value)
        for key in ("path", "images")
        if isinstance(value := settings.get(key), str) and value
    }
    return {**settings, **paths}


def _numbered(names: list[Any] | tuple[Any, ...]) -> list[tuple[str, Any]]:
    return [(str(number), name) for number, name in enumerate(names)]
