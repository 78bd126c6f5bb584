"""What is known of a part's URLs so far, kept in small files, so that a killed run asks only for the rest."""

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline import schemas
from pipeline.downloading.via_img2dataset import Refusal
from pipeline.errors import CorruptWorkspace
from pipeline.pictures.examine import Measured, StoredImage
from pipeline.runtime import storage
from pipeline.runtime.parquet import read_parquet, write_parquet

FLUSH_BYTES = 32 << 20
FLUSH_S = 5.0
"""A file is written once this many bytes or seconds have come together: what a kill may cost."""

MEASURED = [column.name for column in fields(Measured)]

_PLACE = ["image_offset", "image_length"]
_ANSWERS = pa.schema(
    [
        ("rank", pa.int64()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("extension", pa.string()),
        *(schemas.DOWNLOADED.field(name).with_nullable(True) for name in (*MEASURED, *_PLACE)),
    ]
)
_WITH_FILE = _ANSWERS.append(pa.field("file", pa.int32()))

ReadImage = Callable[[int, int, int], bytes]


class Journal:
    """The answers for the URLs of one part, which are known by their ranks.

    Each flush writes the images, one after another, to `NAME.images`, and then a table of the
    answers to `NAME.parquet`, which counts only once it is there.
    """

    def __init__(self, folder: str) -> None:
        """Take up what an earlier run left in `folder`."""
        self._folder = folder
        self._files = [p for p in storage.list_inside(folder) if p.endswith(".parquet")]
        self._rows: list[dict[str, Any]] = []
        self._images: list[bytes] = []
        self._bytes = 0
        self._flushed = time.monotonic()

    def known(self) -> npt.NDArray[np.int64]:
        """Return the ranks whose answers are in the files."""
        tables = [read_parquet(path, columns=["rank"]) for path in self._files]
        column = pa.concat_tables([_ANSWERS.empty_table().select(["rank"]), *tables]).column("rank")
        return np.unique(column.to_numpy())

    def add(self, rank: int, answer: StoredImage | Refusal) -> None:
        """Note an answer; it is safe after the next flush."""
        if isinstance(answer, Refusal):
            row = {"rank": rank, "reason": answer.reason, "detail": answer.detail}
        else:
            row = {name: getattr(answer.measured, name) for name in MEASURED}
            row |= {"rank": rank, "extension": answer.extension}
            row |= {"image_offset": self._bytes, "image_length": len(answer.data)}
            self._images.append(answer.data)
            self._bytes += len(answer.data)
        self._rows.append(row)
        if self._bytes >= FLUSH_BYTES or time.monotonic() - self._flushed >= FLUSH_S:
            self.flush()

    def flush(self) -> None:
        """Write what has come since the last time."""
        if self._rows:
            # A name of its own, in case two workers take the same task for theirs.
            path = storage.join(self._folder, f"{len(self._files):06d}-{uuid.uuid4().hex}.parquet")
            if self._images:
                with storage.atomic_output(_images_of(path)) as file:
                    for data in self._images:
                        file.write(data)
            write_parquet(path, pa.Table.from_pylist(self._rows, schema=_ANSWERS))
            self._files.append(path)
        self._rows, self._images, self._bytes = [], [], 0
        self._flushed = time.monotonic()

    def answers(self) -> pa.Table:
        """Return what the files hold, one row a rank, in the order of ranks; `file` is for `images`."""
        tables = [_WITH_FILE.empty_table()]
        for number, path in enumerate(self._files):
            table = read_parquet(path)
            number_column = pa.repeat(pa.scalar(number, pa.int32()), table.num_rows)
            tables.append(table.append_column("file", number_column))
        table = pa.concat_tables(tables).combine_chunks()
        _, first = np.unique(table.column("rank").to_numpy(), return_index=True)
        return table.take(pa.array(first))

    @contextmanager
    def images(self) -> Iterator[ReadImage]:
        """Yield what reads an image by its file, offset and length.

        The images of a workspace in object storage are copied to the temporary folder meanwhile.
        """
        with ExitStack() as copies:
            local: dict[int, str] = {}

            def read(file: int, offset: int, length: int) -> bytes:
                if file not in local:
                    path = _images_of(self._files[file])
                    local[file] = copies.enter_context(storage.local_copy(path))
                data = storage.read_range(local[file], offset, length)
                if len(data) != length:
                    raise CorruptWorkspace(
                        f"{_images_of(self._files[file])} ends within the image at byte {offset:,}; "
                        f"delete {self._folder} and run `witmill download` again"
                    )
                return data

            yield read


def _images_of(path: str) -> str:
    return f"{path.removesuffix('.parquet')}.images"
