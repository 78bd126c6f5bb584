"""Errors a user can act on.

WitmillError
├── ConfigError       a setting is missing, unknown or out of range
├── InputError        something given from outside cannot be read as what it should be
├── SchemaError       a table does not have the columns its stage promised
├── MissingInput      an earlier stage has not finished, or is out of date
├── CorruptWorkspace  a file of the workspace is not what its manifest says
├── StorageError      a path cannot be read or written
├── NetworkDown       the web cannot be reached; no task can go on
├── AccountingError   rows in are not rows out plus drops: a fault of the stage
└── TaskFailed        tasks failed; names them, keeps the first cause
"""


class WitmillError(Exception):
    """Base class; the command line prints it as one line and exits with 1."""


class ConfigError(WitmillError):
    """A setting is missing, unknown or out of range."""


class InputError(WitmillError):
    """Something given from outside cannot be read as what it should be."""


class SchemaError(WitmillError):
    """A table does not have the columns its stage promised."""


class MissingInput(WitmillError):
    """An earlier stage has not finished, or is out of date."""


class CorruptWorkspace(WitmillError):
    """A file of the workspace is not what its manifest says."""


class StorageError(WitmillError):
    """A path cannot be read or written; `errno` is the system's number for why, if there is one."""

    errno: int | None = None


class NetworkDown(WitmillError):
    """The web cannot be reached: what every other task would find, too, so none is begun."""


class AccountingError(WitmillError):
    """Rows in are not rows out plus drops: a fault of the stage itself."""


class TaskFailed(WitmillError):
    """Tasks failed; `__cause__` holds the first original error."""
