"""Ray behind the `Executor` interface; imported only when asked for."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import ray

from pipeline.runtime.attempts import ATTEMPTS, Attempt, Attempts

Task = TypeVar("Task")
Result = TypeVar("Result")


class RayExecutor:
    """Ray tasks, with a bounded number submitted at once; Ray itself moves them off dead nodes."""

    def __init__(self, in_flight: int | None = None) -> None:
        """Join the cluster named by RAY_ADDRESS, or start one here, and keep `in_flight` tasks submitted.

        None keeps twice the cluster's cores submitted.
        """
        self._started = not ray.is_initialized()
        if self._started:
            ray.init(log_to_driver=False, include_dashboard=False)
        self._in_flight = in_flight

    def map(self, work: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """See `Executor.map`."""
        remote = ray.remote(max_retries=ATTEMPTS - 1)(work)
        cores = int(ray.cluster_resources().get("CPU", 1))  # type: ignore[no-untyped-call]
        limit = self._in_flight or 2 * max(1, cores)
        attempts = Attempts(tasks)
        running: dict[Any, Attempt[Task]] = {}
        while True:
            while len(running) < limit and (following := attempts.take()):
                running[remote.remote(following.task)] = following
            if not running:
                break
            ready, _ = ray.wait(list(running))
            attempt = running.pop(ready[0])
            try:
                result = ray.get(ready[0])
            except ray.exceptions.RayError as error:
                attempts.failed(attempt, getattr(error, "cause", None) or error)
            else:
                yield result
        attempts.report()

    def close(self) -> None:
        """Leave the cluster, and end it if it was started here."""
        if self._started and ray.is_initialized():
            ray.shutdown()
