import zipfile
from pathlib import Path

import pytest

from dedup.evalsets import EvalSet, files_of, items, read_evalsets
from pipeline.errors import ConfigError, InputError, StorageError


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def zipped(path: Path, **files: bytes) -> str:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return str(path)


def folder(path: Path, files: dict[str, bytes]) -> str:
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return str(path)


PICTURES = {"coat/2.png": b"two", "coat/1.JPG": b"one", "ankle_boot/10.png": b"ten"}


def test_sets_come_in_the_order_of_the_file_with_paths_beside_it(tmp_path: Path) -> None:
    toml = write(
        tmp_path / "sets.toml",
        '[wear]\npath = "sets/wear.zip"\nmax_distance = 12\nprompts = ["{label}, worn."]\n'
        '[art]\npath = "/art"\n[far]\npath = "s3://bucket/far.zip"\n',
    )
    wear, art, far = read_evalsets(toml)
    assert (wear.name, wear.path) == ("wear", f"{tmp_path}/sets/wear.zip")
    assert (wear.max_distance, wear.prompts) == (12, ("{label}, worn.",))
    assert (art.path, art.prompts, art.max_distance) == ("/art", ("a photo of a {label}.",), 31)
    assert far.path == "s3://bucket/far.zip"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[a]\npath = "p"\nprompts = ["a photo"]', "a.prompts is ['a photo'], expected {label}"),
        ('[a]\npath = "p"\nprompts = ["{label} {x}"]', "and no other field in every template"),
        ('[a]\npath = "p"\nprompts = ["{label"]', "not '{label'"),
        ('[a]\npath = "p"\nprompts = []', "a.prompts is []"),
        ("[a]", "a.path is missing"),
        ('[a]\npath = "p"\nmax_distance = 64', "a.max_distance is 64, expected less than or equal"),
        ('[a]\npath = "p"\nsize = 3', "a.size is not a setting"),
        ('[a]\npath = "p"\nname = "b"', "a.name is not a setting"),
        ('["../a"]\npath = "p"', "../a.name is '../a', expected letters"),
        ("a = 3", "a is 3, expected a table"),
    ],
)
def test_a_wrong_key_is_named_with_its_file(tmp_path: Path, text: str, message: str) -> None:
    toml = write(tmp_path / "sets.toml", text)
    with pytest.raises(ConfigError) as caught:
        read_evalsets(toml)
    assert str(caught.value).startswith(f"{toml}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "# nothing\n", "[a", "[a]\n[a]\n", "\x00"])
def test_a_file_without_sets_or_not_toml_is_refused(tmp_path: Path, text: str) -> None:
    toml = write(tmp_path / "sets.toml", text)
    with pytest.raises(InputError, match=r"sets\.toml"):
        read_evalsets(toml)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sets.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="is not a TOML file"):
        read_evalsets(str(tmp_path / "sets.toml"))


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"none\.toml"):
        read_evalsets(str(tmp_path / "none.toml"))


def test_a_zip_and_a_folder_of_the_same_pictures_give_the_same_items(tmp_path: Path) -> None:
    from_zip = EvalSet(name="a", path=zipped(tmp_path / "set", **PICTURES))
    from_folder = EvalSet(name="a", path=folder(tmp_path / "b", PICTURES))
    found = list(items(from_zip))
    assert [(i.item, i.label, i.data) for i in found] == [
        ("ankle_boot/10.png", "ankle boot", b"ten"),
        ("coat/1.JPG", "coat", b"one"),
        ("coat/2.png", "coat", b"two"),
    ]
    assert list(items(from_folder)) == found


def test_the_class_is_the_folder_that_holds_the_picture(tmp_path: Path) -> None:
    names = ["x/train/été-bleu/1.png", "x/test/été-bleu/1.png"]
    path = zipped(tmp_path / "set.zip", **dict.fromkeys(names, b""))
    evalset = EvalSet(name="a", path=path, labels={"été-bleu": "a blue summer"})
    assert {(i.item, i.label) for i in items(evalset)} == {(n, "a blue summer") for n in names}


def test_what_is_no_picture_is_passed_over(tmp_path: Path) -> None:
    others = [
        "README.md",
        "top.png",
        "coat/.1.png",
        "__MACOSX/coat/1.png",
        "coat/notes.txt",
        ".x/1.png",
    ]
    path = zipped(tmp_path / "set.zip", **dict.fromkeys([*others, "coat/1.png"], b""))
    assert [i.item for i in items(EvalSet(name="a", path=path))] == ["coat/1.png"]
    same = folder(tmp_path / "b", dict.fromkeys([*others, "coat/1.png"], b""))
    assert [i.item for i in items(EvalSet(name="a", path=same))] == ["coat/1.png"]


def test_an_empty_set_is_refused(tmp_path: Path) -> None:
    for path in (zipped(tmp_path / "a.zip", README=b""), folder(tmp_path / "b", {"1.png": b""})):
        with pytest.raises(InputError, match=r"holds no picture, expected CLASS/NAME\.png"):
            list(items(EvalSet(name="a", path=path)))


def test_a_set_that_is_neither_folder_nor_zip_is_refused(tmp_path: Path) -> None:
    absent = EvalSet(name="a", path=str(tmp_path / "none"))
    with pytest.raises(InputError, match="none does not exist"):
        list(items(absent))
    text = EvalSet(name="a", path=write(tmp_path / "set.zip", "not a zip"))
    with pytest.raises(InputError, match="neither a folder nor a readable zip"):
        list(items(text))


def test_a_label_for_a_class_that_is_not_there_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "set.zip", **PICTURES)
    with pytest.raises(InputError, match=r"no class folder 'boot' .* one of: ankle_boot, coat"):
        list(items(EvalSet(name="a", path=path, labels={"boot": "a boot"})))


def test_the_files_of_sets_are_named_by_set(tmp_path: Path) -> None:
    first = EvalSet(name="a", path=zipped(tmp_path / "a.zip", **PICTURES))
    second = EvalSet(name="evalsets", path=folder(tmp_path / "b", PICTURES))
    assert files_of("s.toml", [first, second]) == {
        "evaluation sets": "s.toml",
        "a": first.path,
        "evalsets": second.path,
    }


def test_files_of_useless_sets_are_refused(tmp_path: Path) -> None:
    good = EvalSet(name="a", path=zipped(tmp_path / "a.zip", **PICTURES))
    empty = EvalSet(name="b", path=zipped(tmp_path / "b.zip", README=b""))
    wrong = good.model_copy(update={"labels": {"boot": "a boot"}})
    text = EvalSet(name="c", path=write(tmp_path / "c.zip", "not a zip"))
    for useless, problem in ((empty, "no picture"), (wrong, "no class"), (text, "readable zip")):
        with pytest.raises(InputError, match=problem):
            files_of("s.toml", [good, useless])


def test_a_damaged_entry_of_a_zip_is_named(tmp_path: Path) -> None:
    path = Path(zipped(tmp_path / "set.zip", **{"coat/1.png": b"content" * 9}))
    path.write_bytes(path.read_bytes().replace(b"contentcontent", b"CONTENTcontent", 1))
    with pytest.raises(InputError, match=r"coat/1\.png cannot be unpacked"):
        list(items(EvalSet(name="a", path=str(path))))


def test_a_zip_that_promises_a_huge_picture_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "set.zip"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("coat/1.png", "w") as entry,
    ):
        for _ in range(257):
            entry.write(bytes(1 << 20))
    with pytest.raises(InputError, match=r"coat/1\.png has 269484032 bytes, expected at most"):
        list(items(EvalSet(name="a", path=str(path))))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_zip_that_names_a_picture_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("coat/1.png", b"a")
        archive.writestr("coat/1.png", b"b")
    with pytest.raises(InputError, match=r"holds coat/1\.png twice"):
        list(items(EvalSet(name="a", path=str(path))))


def test_a_set_is_read_from_object_storage(tmp_path: Path, s3_bucket: str) -> None:
    from pipeline.runtime import storage

    local = zipped(tmp_path / "set.zip", **PICTURES)
    storage.write_bytes(f"{s3_bucket}/sets/wear.zip", Path(local).read_bytes())
    for name, data in PICTURES.items():
        storage.write_bytes(f"{s3_bucket}/sets/wear/{name}", data)
    storage.write_bytes(
        f"{s3_bucket}/sets/sets.toml", b'[zip]\npath = "wear.zip"\n[folder]\npath = "wear"\n'
    )
    from_zip, from_folder = read_evalsets(f"{s3_bucket}/sets/sets.toml")
    assert [i.item for i in items(from_zip)] == sorted(PICTURES)
    assert list(items(from_folder)) == list(items(from_zip))
    files = files_of("s.toml", [from_zip, from_folder])
    assert files["zip"] == f"{s3_bucket}/sets/wear.zip"
