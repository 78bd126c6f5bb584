"""What one table of a sources file says: where samples lie, which of them, how often they are read.

```toml
[wit]
path = "runs/first"                    # a workspace; relative to this file

[cc12m]
path = "s3://bucket/cc12m/{00000..01242}.tar"
weight = 0.5                           # each sample every other epoch
where = "CAST(metadata->>'width' AS INTEGER) >= 256"

[pets]
path = "pets/train"                    # a folder for each class
prompts = ["a photo of a {label}, a type of pet."]
```
"""

import tomllib
from typing import Any

from pydantic import Field

from dedup.evaluation.readers.settings import EvalSet, PlainName
from pipeline.errors import ConfigError, InputError
from pipeline.runtime import storage
from pipeline.runtime.settings import Settings, read_settings


class SourceSettings(Settings):
    """A source of samples: where they lie, which of them are read, and how often."""

    name: PlainName
    """name of the source in messages and samples"""
    path: str
    """workspace, folder or pattern of tars, or folder of labelled pictures; relative to the file that names it"""
    weight: float = Field(1.0, ge=0.001, le=100)
    """times that each sample is read in an epoch"""
    where: str = ""
    """condition in DuckDB's SQL over the columns of the index; default: all samples"""
    index: str = ""
    """tars of others: folder with indexes that `witmill index --output` wrote"""
    pictures: bool = True
    """give pictures; off: captions alone, those of samples without a picture, too"""
    prompts: str | tuple[str, ...] = ()
    """labelled pictures: caption templates, as in the file of evaluation sets"""
    labels: dict[str, str] | tuple[str, ...] = Field(default_factory=dict)
    """labelled pictures: class to readable name, as in the file of evaluation sets"""
    names: str = ""
    """labelled pictures: set of CLIP's paper whose names for the classes are used"""

    @property
    def where_it_is(self) -> str:
        """What messages call the source."""
        return f"source {self.name}: {self.path}"

    def classes(self) -> EvalSet:
        """Return how the classes of labelled pictures are put into words.

        Raises:
            ConfigError: naming every key that is wrong.
        """
        given = self.model_dump(include={"name", "path", *self._of_classes()})
        return read_settings(EvalSet, given, where=f"source {self.name}")

    def check_no_classes(self) -> None:
        """Make sure that nothing is said of classes, which the samples of tars have not.

        Raises:
            ConfigError: naming what is said.
        """
        if given := self._of_classes():
            raise ConfigError(
                f"{self.where_it_is} holds tars, whose samples have captions: {', '.join(sorted(given))} is for "
                "folders of labelled pictures; remove it"
            )

    def _of_classes(self) -> set[str]:
        return {"prompts", "labels", "names"} & self.model_fields_set


def read_sources(path: str) -> tuple[SourceSettings, ...]:
    """Read the sources of a TOML file, in the order they stand there.

    Raises:
        StorageError: if the file cannot be read.
        InputError: if it is not TOML, or names no source.
        ConfigError: one line that names the file and every wrong key.
    """
    try:
        tables: dict[str, Any] = tomllib.loads(storage.read_bytes(path).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no TOML: {error}") from error
    if not tables:
        raise InputError(f"{path} names no source; expected tables such as [wit] with a path")
    sources = []
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise ConfigError(f"{path}: {name} is {table!r}, expected a table [{name}] with a path")
        if "name" in table:
            raise ConfigError(
                f"{path}: {name}.name is set, expected the name in the brackets alone"
            )
        settings = read_settings(SourceSettings, {"name": name, **table}, where=f"{path}: {name}")
        if not settings.path:
            raise ConfigError(f"{path}: {name}.path is empty, expected where samples lie")
        place = {
            key: storage.join(storage.parent(path), value)
            for key in ("path", "index")
            if (value := getattr(settings, key))
        }
        sources.append(settings.model_copy(update=place))
    return tuple(sources)
