import errno
import os
import pickle
from pathlib import Path

import pytest

from pipeline.errors import NetworkDown, StorageError, TaskFailed
from pipeline.runtime import storage
from pipeline.runtime.attempts import ATTEMPTS, Attempts


def of_storage(number: int) -> StorageError:
    """As it comes from another process."""
    with pytest.raises(StorageError) as caught, storage.storage_errors("write", "/a"):
        raise OSError(number, os.strerror(number))
    error: StorageError = pickle.loads(pickle.dumps(caught.value))
    return error


def tries(error: BaseException) -> list[int]:
    """Run three tasks that all fail; return the numbers of tasks in the order in which they ran."""
    attempts = Attempts(range(3))
    ran = []
    while attempt := attempts.take():
        ran.append(attempt.task)
        attempts.failed(attempt, error)
    with pytest.raises(TaskFailed):
        attempts.report()
    return ran


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_what_every_task_would_meet_ends_them_all(number: int) -> None:
    assert tries(of_storage(number)) == tries(OSError(number, "as it is")) == [0]
    assert tries(NetworkDown("no host answers")) == [0]


def test_other_faults_of_storage_may_pass(tmp_path: Path) -> None:
    assert sorted(tries(of_storage(errno.EIO))) == sorted([0, 1, 2] * ATTEMPTS)
    with pytest.raises(StorageError) as caught:
        storage.read_bytes(str(tmp_path / "absent"))
    assert len(tries(caught.value)) == 3 * ATTEMPTS


def test_a_full_disk_is_recognised_where_it_is_met() -> None:
    with pytest.raises(StorageError) as full, storage.storage_errors("write", "/dev/full"):
        Path("/dev/full").write_bytes(b"x")
    assert full.value.errno == errno.ENOSPC
