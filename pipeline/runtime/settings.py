"""The base of every stage's config: frozen, validated, and one line per mistake.

pydantic checks types and ranges and names the key; Cyclopts turns the same fields into options and
`--help`. Field docstrings, one line each, are the only documentation of a setting: the command
line, the reference in `docs/` and editors all show them.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.errors import ConfigError


class Settings(BaseModel):
    """A stage's settings; subclasses add fields, each with a default and a docstring."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


def pace(default: Any, **limits: Any) -> Any:
    """Declare a setting that changes how fast a stage works and never what it writes."""
    return Field(default, json_schema_extra={"pace": True}, **limits)


def pace_settings(config: type[Settings]) -> set[str]:
    """Return the names of the settings declared by `pace`; they are no part of a fingerprint."""
    extras = {name: field.json_schema_extra for name, field in config.model_fields.items()}
    return {name for name, extra in extras.items() if isinstance(extra, dict) and extra.get("pace")}


Config = TypeVar("Config", bound=Settings)


def read_settings(config: type[Config], values: Mapping[str, Any], *, where: str) -> Config:
    """Build `config` from plain values, such as one table of a TOML file.

    Args:
        where: what to call the table in messages, such as "match".

    Raises:
        ConfigError: one line that names every wrong key, what it is and what was expected.
    """
    try:
        return config.model_validate(values)
    except ValidationError as error:
        known = ", ".join(config.model_fields) or "none, it has no settings"
        raise ConfigError("; ".join(explain(error, prefix=f"{where}.", known=known))) from error


def explain(error: ValidationError, *, prefix: str = "", known: str = "") -> list[str]:
    """Return one sentence per mistake: the key after `prefix`, what it is, what was expected."""
    sentences = []
    for mistake in error.errors():
        key = prefix + ".".join(str(step) for step in mistake["loc"])
        if mistake["type"] == "extra_forbidden":
            sentences.append(f"{key} is not a setting, expected one of: {known}")
        elif mistake["type"] == "missing":
            sentences.append(f"{key} is missing")
        else:
            expected = mistake["msg"].removeprefix("Value error, ")
            expected = expected.removeprefix("Input should be ")
            # Settings that do not fit each other: no single one is at fault.
            found = f"{key} is {mistake['input']!r}," if mistake["loc"] else f"{prefix[:-1]}:"
            sentences.append(f"{found} expected {expected}".removeprefix(": "))
    return sentences
