"""Keep witmill processes of one machine out of each other's way."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.errors import InputError
from pipeline.runtime import storage


@contextmanager
def locked(path: str, *, where: str, shared: bool = False) -> Iterator[None]:
    """Hold a local file or folder while the block runs; a shared hold keeps out only who wants it alone.

    Args:
        where: of what the others are told that somebody is at work there, such as "in W".

    Raises:
        InputError: if another process holds it.
        StorageError: if it cannot be opened.
    """
    with storage.storage_errors("read", path):
        opened = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(opened, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"another witmill is at work {where}; wait for it or stop it"
            ) from error
        yield
    finally:
        os.close(opened)


@contextmanager
def waited_for(path: str) -> Iterator[None]:
    """Hold a local file or folder while the block runs, once nobody else does.

    Raises:
        StorageError: if it cannot be opened.
    """
    with storage.storage_errors("read", path):
        opened = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)
