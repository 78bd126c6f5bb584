"""Which task to run next, which to try again, and what to say of those that failed for good."""

import errno
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from pipeline.errors import NetworkDown, StorageError, TaskFailed, WitmillError

Task = TypeVar("Task")

ATTEMPTS = 3

_FULL_OR_FORBIDDEN = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)


class WorkerDied(RuntimeError):
    """A worker process ended without an answer."""


@dataclass(frozen=True)
class Attempt(Generic[Task]):
    """One try at a task; `alone` when it must run with nothing beside it."""

    task: Task
    number: int = 1
    alone: bool = False


class Attempts(Generic[Task]):
    """Hands out tasks, those to be tried again first, and keeps count of what failed for good."""

    def __init__(self, tasks: Iterable[Task]) -> None:
        """Hand out `tasks` in their order."""
        self._new = iter(tasks)
        self._again: deque[Attempt[Task]] = deque()
        self._suspects: deque[Attempt[Task]] = deque()
        self._failures: list[tuple[Task, BaseException]] = []
        self._total = 0

    @property
    def must_run_alone(self) -> bool:
        """Whether the next task must have nothing beside it."""
        return bool(self._suspects)

    def take(self) -> Attempt[Task] | None:
        """Return what to run next, or None if nothing is left at present."""
        for waiting in (self._suspects, self._again):
            if waiting:
                return waiting.popleft()
        for task in self._new:
            self._total += 1
            return Attempt(task)
        return None

    def failed(self, attempt: Attempt[Task], error: BaseException) -> None:
        """Put the task back if trying again may help, otherwise remember its failure."""
        if _meets_all(error):
            self._new = iter(())
        may_change = isinstance(error, StorageError) or not isinstance(error, WitmillError)
        if may_change and not _meets_all(error) and attempt.number < ATTEMPTS:
            following = replace(attempt, number=attempt.number + 1)
            (self._suspects if attempt.alone else self._again).append(following)
        else:
            self._failures.append((attempt.task, error))

    def suspect(self, attempt: Attempt[Task]) -> None:
        """Put back a task that ran when a worker died; alone, it will show whether it is the cause."""
        self._suspects.append(replace(attempt, alone=True))

    def report(self) -> None:
        """Raise TaskFailed naming the tasks that failed for good, if there are any."""
        if not self._failures:
            return
        first = self._failures[0][1]
        reason = (
            str(first) if isinstance(first, WitmillError) else f"{type(first).__name__}: {first}"
        )
        names = ", ".join(str(task) for task, _ in self._failures[:5])
        more = f" and {len(self._failures) - 5} more" if len(self._failures) > 5 else ""
        raise TaskFailed(
            f"{len(self._failures)} of {self._total} tasks failed ({names}{more}): {reason}"
        ) from first


def _meets_all(error: BaseException) -> bool:
    """Return whether other tasks, and the same one once more, would meet the error, too."""
    of_disk = getattr(error, "errno", None) in _FULL_OR_FORBIDDEN
    return of_disk or isinstance(error, NetworkDown)
