"""The base of every stage's config: frozen, validated, and one line per mistake.

pydantic checks types and ranges and names the key; Cyclopts turns the same fields into options and
`--help`. Field docstrings, one line each, are the only documentation of a setting: the command
line, the reference in `docs/` and editors all show them.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.errors import ConfigError


class Settings(BaseModel):
    """A stage's settings; subclasses add fields, each with a default and a docstring."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


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
        raise ConfigError("; ".join(explain(error, config, where=where))) from error


def explain(error: ValidationError, config: type[Settings], *, where: str) -> list[str]:
    """Return one sentence per mistake: the key, what it is, what was expected."""
    sentences = []
    for mistake in error.errors():
        key = ".".join([where, *(str(step) for step in mistake["loc"])])
        if mistake["type"] == "extra_forbidden":
            known = ", ".join(config.model_fields) or "no settings"
            sentences.append(f"{key} is not a setting of {where}, expected one of: {known}")
        elif mistake["type"] == "missing":
            sentences.append(f"{key} is missing")
        else:
            expected = mistake["msg"].removeprefix("Value error, ")
            expected = expected.removeprefix("Input should be ")
            sentences.append(f"{key} is {mistake['input']!r}, expected {expected}")
    return sentences
