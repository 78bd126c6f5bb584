"""Run one function over many tasks, on this machine or on a Ray cluster."""

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Literal, Protocol, TypeVar

from pipeline.errors import ConfigError
from pipeline.runtime.attempts import Attempt, Attempts, WorkerDied

Task = TypeVar("Task")
Result = TypeVar("Result")


class Executor(Protocol):
    """The whole surface that stages may use."""

    def map(self, work: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """Yield results as tasks finish, in any order; the others go on when one fails.

        `work` must be a module-level function; tasks and results must pickle. A task that fails is
        tried again, up to `ATTEMPTS` times in all, unless its error is one that will not change.

        Raises:
            TaskFailed: when all tasks have ended, naming those that failed.
        """
        ...

    def close(self) -> None:
        """Free what the executor holds."""
        ...


class InlineExecutor:
    """Runs tasks one after another in the calling process, for debugging and small work."""

    def map(self, work: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """See `Executor.map`."""
        attempts = Attempts(tasks)
        while attempt := attempts.take():
            try:
                result = work(attempt.task)
            except Exception as error:  # noqa: BLE001 - reported when the others have ended
                attempts.failed(attempt, error)
            else:
                yield result
        attempts.report()

    def close(self) -> None:
        """Nothing is held."""


class LocalExecutor:
    """Spawned processes on this machine, started at the first `map` and kept until `close`."""

    def __init__(self, workers: int) -> None:
        """Use `workers` processes, at least 1."""
        self.workers = workers
        self._pool: ProcessPoolExecutor | None = None

    def map(self, work: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """See `Executor.map`."""
        attempts = Attempts(tasks)
        running: dict[Future[Result], Attempt[Task]] = {}
        finished = False
        try:
            while self._fill(running, attempts, work):
                ended, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in ended:
                    attempt = running.pop(future)
                    error = future.exception()
                    if error is None:
                        yield future.result()
                    elif not isinstance(error, BrokenProcessPool):
                        attempts.failed(attempt, error)
                    else:
                        self._settle_death(attempt, attempts)
            finished = True
        finally:
            if not finished:
                self._stop()
        attempts.report()

    def _fill(
        self,
        running: dict[Future[Result], Attempt[Task]],
        attempts: Attempts[Task],
        work: Callable[[Task], Result],
    ) -> bool:
        limit = 1 if attempts.must_run_alone else 2 * self.workers
        while len(running) < limit and (attempt := attempts.take()):
            running[self._submit(work, attempt.task)] = attempt
        return bool(running)

    def _settle_death(self, attempt: Attempt[Task], attempts: Attempts[Task]) -> None:
        self.close()
        if attempt.alone:
            reason = "its worker process died, by a signal or for lack of memory"
            attempts.failed(attempt, WorkerDied(reason))
        else:
            attempts.suspect(attempt)

    def _submit(self, work: Callable[[Task], Result], task: Task) -> Future[Result]:
        if self._pool is None:
            # spawn, not fork: Arrow and DuckDB keep threads that do not survive a fork.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.workers, context, initializer=_start_worker)
        with _undisturbed_start():
            try:
                return self._pool.submit(work, task)
            except BrokenProcessPool:
                # An idle worker died since the last task ended: nothing is lost, a new pool takes over.
                self.close()
        return self._submit(work, task)

    def _stop(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():
                child.kill()
            self._pool = None

    def close(self) -> None:
        """End the worker processes."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None


@contextmanager
def _undisturbed_start() -> Iterator[None]:
    """Start processes that never see Ctrl-C, and put off any signal to stop until they have started.

    Ctrl-C reaches the whole process group; a process inherits the mask it is started under, and the
    parent alone decides what to stop. A start that is cut short leaves a process that complains of it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []
    stops = (signal.SIGINT, signal.SIGTERM)
    handlers = {
        stop: signal.signal(stop, lambda number, _: arrived.append(number)) for stop in stops
    }
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, stops)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for stop, handler in handlers.items():
            signal.signal(stop, handler)
        for number in arrived:
            signal.raise_signal(number)


def _start_worker() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # Without this a worker whose parent was killed waits for tasks for ever.
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def make_executor(kind: Literal["local", "ray"], *, workers: int | None = None) -> Executor:
    """Return the executor called `kind`.

    Args:
        workers: processes, or tasks in flight on Ray; None for one per core, 0 to run in this process.

    Raises:
        ConfigError: for a negative number, or for "ray" when Ray is not installed.
    """
    if workers is not None and workers < 0:
        raise ConfigError(f"workers is {workers}, expected 0 or more")
    if kind == "ray":
        if workers == 0:
            raise ConfigError("workers is 0, expected 1 or more tasks in flight on Ray")
        try:
            from pipeline.runtime.ray_executor import RayExecutor
        except ModuleNotFoundError as error:
            raise ConfigError(
                'executor is "ray", which needs: pip install "witmill[ray]"'
            ) from error
        return RayExecutor(in_flight=workers)
    if workers == 0:
        return InlineExecutor()
    return LocalExecutor(workers or len(os.sched_getaffinity(0)))
