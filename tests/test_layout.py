"""Imports point one way: the runtime knows no stage, curating needs no torch."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("pipeline", "queries", "dedup", "train")
CORE = [
    *sorted((ROOT / "pipeline/runtime").glob("*.py")),
    *sorted((ROOT / "pipeline/schemas").glob("*.py")),
    ROOT / "pipeline/errors.py",
]
KNOWS_ALL = {"stages", "stage_commands", "plan", "status", "catalog", "demo", "cli", "reference"}
MODULES = sorted(p for name in PACKAGES for p in (ROOT / name).rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Return the project's own modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = ROOT.joinpath(*node.module.split("."))
            found |= {
                f"{node.module}.{alias.name}"
                if (inner / f"{alias.name}.py").exists() or (inner / alias.name).is_dir()
                else node.module
                for alias in node.names
            }
    return {name for name in found if name.split(".")[0] in PACKAGES}


def outside(path: Path, *allowed: str) -> list[str]:
    prefixes = tuple(f"{name}." for name in allowed)
    return sorted(n for n in imports(path) if n not in allowed and not n.startswith(prefixes))


@pytest.mark.parametrize("path", CORE, ids=lambda p: p.name)
def test_the_core_imports_no_stage(path: Path) -> None:
    core = ("pipeline", "pipeline.runtime", "pipeline.schemas", "pipeline.errors")
    assert outside(path, *core[1:]) in ([], ["pipeline"])


@pytest.mark.parametrize("path", sorted((ROOT / "queries").glob("*.py")), ids=lambda p: p.name)
def test_queries_stand_on_the_core_alone(path: Path) -> None:
    # Counting words takes the matcher's tokens: its kernel, and how texts are handed to it.
    tokens = (
        "pipeline.matching.trie",
        "pipeline.matching.trie_tables",
        "pipeline.matching.token_kernels",
    )
    core = ("pipeline.runtime", "pipeline.schemas", "pipeline.errors")
    assert outside(path, "queries", *core, *tokens) == []


@pytest.mark.parametrize(
    "path", sorted((ROOT / "pipeline/pages").glob("*.py")), ids=lambda p: p.name
)
def test_pages_know_of_inputs_what_they_give_alone(path: Path) -> None:
    given = ("pipeline.inputs.pairs", "pipeline.inputs.captures")
    core = ("pipeline.runtime", "pipeline.schemas", "pipeline.matching.trie_tables")
    assert outside(path, "pipeline.pages", *core, *given) == []


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        ("inputs/boxes", []),
        ("inputs/pairs", ["pipeline.inputs.boxes", "pipeline.pages.urls"]),
        ("inputs/captures", ["pipeline.pages.urls", "pipeline.schemas"]),
        ("pages/urls", []),
    ],
)
def test_what_pages_and_inputs_share_stands_below_both(module: str, allowed: list[str]) -> None:
    assert outside(ROOT / f"pipeline/{module}.py", *allowed) == []


@pytest.mark.parametrize(
    "path", sorted((ROOT / "pipeline/fetching").glob("*.py")), ids=lambda p: p.name
)
def test_fetching_knows_neither_pictures_nor_stages(path: Path) -> None:
    core = ("pipeline", "pipeline.runtime", "pipeline.schemas", "pipeline.errors")
    assert outside(path, "pipeline.fetching", *core[1:]) in ([], ["pipeline"])


@pytest.mark.parametrize("path", sorted((ROOT / "dedup").rglob("*.py")), ids=lambda p: p.name)
def test_dedup_knows_no_training_but_to_read_a_model_of_ours(path: Path) -> None:
    known = (
        {"train.running.checkpoint", "train.models.clip"} if path.name == "networks.py" else set()
    )
    assert {name for name in imports(path) if name.startswith("train")} == known


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_only_those_that_may_know_every_stage(path: Path) -> None:
    if path.parent.name == "pipeline" and path.stem in KNOWS_ALL:
        return
    known = {f"pipeline.{name}" for name in KNOWS_ALL}
    assert imports(path) & known == set()


@pytest.mark.parametrize(
    "path", [p for p in MODULES if "train" not in p.relative_to(ROOT).parts], ids=lambda p: p.name
)
def test_torch_is_imported_under_train_and_where_a_model_is_asked_for(path: Path) -> None:
    tree = ast.parse(path.read_text())
    asked_for = path.parent.name in ("dedup", "embedding") and path.stem in (
        "networks",
        "efficientnet",
    )
    names = set()
    for node in tree.body if asked_for else ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    assert not names & {"torch", "torchvision", "onnx", "onnxruntime"}


def test_the_command_line_starts_without_heavy_libraries() -> None:
    code = (
        "import sys, pipeline.cli; "
        "heavy = {'torch', 'onnxruntime', 'faiss', 'numba', 'img2dataset', 'ray', 'fasttext', 'PIL'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    answer = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True)
    assert answer.strip() == "[]"


@pytest.mark.parametrize("name", PACKAGES)
def test_our_packages_win_over_others_of_the_same_name(name: str) -> None:
    code = f"import importlib.util as u; print(u.find_spec({name!r}).origin)"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    origin = subprocess.check_output(
        [sys.executable, "-c", code], cwd="/", text=True, env=environment
    )
    assert Path(origin.strip()).is_relative_to(ROOT), f"another distribution installs {name!r}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_modules_hold_one_subject(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 420
