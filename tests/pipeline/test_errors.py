import importlib
import inspect
import pickle
import pkgutil
from types import ModuleType

import pytest

import dedup
import pipeline
import queries
import train
from pipeline.fetching.fetch import FetchRefused
from pipeline.pictures.images import ImageRefused


def exceptions() -> list[type[BaseException]]:
    found = {
        kind
        for package in (pipeline, dedup, queries, train)
        for module in modules(package)
        for kind in vars(module).values()
        if inspect.isclass(kind)
        and issubclass(kind, BaseException)
        and kind.__module__ == module.__name__
    }
    return sorted(found, key=lambda kind: f"{kind.__module__}.{kind.__qualname__}")


def modules(package: ModuleType) -> list[ModuleType]:
    names = [m.name for m in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
    return [importlib.import_module(name) for name in names if not name.endswith("__main__")]


def make(kind: type[BaseException]) -> BaseException:
    """Return an exception with "0", "1", ... for whatever its class asks for."""
    if "__init__" not in vars(kind):
        return kind("what is, what was expected")
    asked = list(inspect.signature(kind).parameters)
    return kind(*(str(number) for number in range(len(asked))))


@pytest.mark.parametrize("kind", exceptions(), ids=lambda kind: kind.__qualname__)
def test_every_exception_comes_whole_out_of_another_process(kind: type[BaseException]) -> None:
    error = make(kind)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert (str(again), vars(again)) == (str(error), vars(error))


def test_every_exception_is_found() -> None:
    names = {kind.__qualname__ for kind in exceptions()}
    assert {"ImageRefused", "FetchRefused", "BrokenRecord"} <= names


def test_a_refusal_says_reason_and_detail() -> None:
    assert str(ImageRefused("too_small", "3 x 4")) == "too_small: 3 x 4"
    assert str(FetchRefused("dns", "no such host")) == "dns: no such host"
    assert str(FetchRefused("empty")) == "empty"
    assert pickle.loads(pickle.dumps(FetchRefused("empty"))).detail is None
