import re
import struct
import tracemalloc
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest

from dedup.evaluation.evalsets import (
    EvalSet,
    entries,
    files_of,
    format_of,
    is_labelled,
    items,
    pieces,
    prompts_of,
    read_evalsets,
)
from dedup.evaluation.readers import entries as reading
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
        ('[a]\npath = "p"\nformat = "rar"', "a.format is 'rar', expected 'auto', 'folder'"),
        ('[a]\npath = "p"\npattern = "("', "a.pattern is '(', expected a regular expression"),
        ('[a]\npath = "p"\npattern = "x"', "expected a group (?P<label>...) or (?P<split>...)"),
        ('[a]\npath = "p"\nmin_similarity = 1.2', "a.min_similarity is 1.2, expected less than"),
        ('[a]\npath = "p"\nmin_text_overlap = 0', "a.min_text_overlap is 0, expected greater"),
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
    for path in (zipped(tmp_path / "a.zip", README=b""), folder(tmp_path / "b", {"1.md": b""})):
        with pytest.raises(InputError, match=r"holds no picture, expected CLASS/NAME\.png"):
            list(items(EvalSet(name="a", path=path)))


def test_a_set_that_is_nothing_known_is_refused(tmp_path: Path) -> None:
    absent = EvalSet(name="a", path=str(tmp_path / "none"))
    with pytest.raises(InputError, match="none does not exist"):
        list(items(absent))
    text = EvalSet(name="a", path=write(tmp_path / "set.zip", "not a zip"))
    with pytest.raises(
        InputError, match=r"of an unknown kind, it begins with b'not a zi'; expected"
    ):
        list(items(text))
    with pytest.raises(InputError, match="not a readable zip"):
        list(items(text.model_copy(update={"format": "zip"})))


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
    for useless, problem in ((empty, "no picture"), (wrong, "no class"), (text, "unknown kind")):
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


def test_pictures_outside_any_folder_have_no_class(tmp_path: Path) -> None:
    flat = EvalSet(name="a", path=folder(tmp_path / "a", {"1.png": b"", "2.png": b""}))
    assert [(i.item, i.label) for i in items(flat)] == [("1.png", None), ("2.png", None)]
    assert not is_labelled(flat)
    assert is_labelled(EvalSet(name="b", path=folder(tmp_path / "b", PICTURES)))


def test_a_folder_above_the_class_may_be_the_split(tmp_path: Path) -> None:
    names = ["wear/train/coat/1.png", "wear/test/coat/1.png", "wear/test/train/1.png"]
    path = folder(tmp_path / "a", dict.fromkeys(names, b""))
    evalset = EvalSet(name="a", path=path)
    assert [(i.split, i.label) for i in items(evalset)] == [
        ("test", "coat"), ("test", "train"), ("train", "coat"),
    ]  # fmt: skip
    tests = evalset.model_copy(update={"split": ("test",)})
    assert [i.item for i in items(tests)] == ["wear/test/coat/1.png", "wear/test/train/1.png"]


def test_a_split_that_is_not_there_is_refused(tmp_path: Path) -> None:
    path = folder(tmp_path / "a", {"test/coat/1.png": b"", "train/coat/1.png": b""})
    with pytest.raises(InputError, match="has no split dev, expected one of: test, train"):
        list(items(EvalSet(name="a", path=path, split=("dev",))))


def test_one_split_may_be_named_without_a_list(tmp_path: Path) -> None:
    toml = write(
        tmp_path / "sets.toml",
        '[a]\npath = "p"\nsplit = "test"\n[b]\npath = "p"\nsplit = ["x", "y"]',
    )
    assert [evalset.split for evalset in read_evalsets(toml)] == [("test",), ("x", "y")]


def test_a_list_of_labels_names_classes_by_number(tmp_path: Path) -> None:
    toml = write(tmp_path / "sets.toml", '[a]\npath = "p"\nlabels = ["zero", "one"]')
    assert read_evalsets(toml)[0].labels == {"0": "zero", "1": "one"}


def test_a_pattern_says_what_names_mean(tmp_path: Path) -> None:
    names = ["images/Abyssinian_1.jpg", "images/great_pyrenees_2.jpg", "images/logo.jpg"]
    path = zipped(tmp_path / "pets.zip", **dict.fromkeys(names, b""))
    pets = EvalSet(name="a", path=path, pattern=r"(?P<label>\w+)_\d+\.jpg$")
    assert [(i.item, i.label) for i in items(pets)] == [
        ("images/Abyssinian_1.jpg", "Abyssinian"),
        ("images/great_pyrenees_2.jpg", "great pyrenees"),
    ]
    halves = EvalSet(name="a", path=path, pattern=r"/(?P<split>[A-Z])?.*_\d+\.jpg$")
    assert {(i.label, i.split) for i in items(halves)} == {(None, "A"), (None, "")}
    with pytest.raises(InputError, match="holds no picture whose name fits"):
        list(items(EvalSet(name="a", path=path, pattern="(?P<label>nothing)")))


def test_a_setting_of_another_format_is_refused(tmp_path: Path) -> None:
    evalset = EvalSet(name="a", path=folder(tmp_path / "a", PICTURES), label_column="x")
    with pytest.raises(ConfigError, match=r"read as folder: label_column is for parquet alone"):
        files_of("s.toml", [evalset])


def test_pieces_give_together_what_the_whole_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "PIECE_ITEMS", 2)
    many = {f"coat/{i}.png": str(i).encode() for i in range(7)}
    for path in (folder(tmp_path / "a", many), zipped(tmp_path / "a.zip", **many)):
        evalset = EvalSet(name="a", path=path)
        whole = [item.data for item in items(evalset)]
        assert len(pieces(evalset)) == 4
        parts = [
            entry.read()
            for piece in pieces(evalset)
            for entry in entries(evalset, piece)
            if entry.read
        ]
        assert parts == whole == [str(i).encode() for i in range(7)]


def test_prompts_are_the_given_ones_or_the_default(tmp_path: Path) -> None:
    path = folder(tmp_path / "a", PICTURES)
    assert prompts_of(EvalSet(name="a", path=path)) == ("a photo of a {label}.",)
    assert prompts_of(EvalSet(name="a", path=path, prompts=("{label}",))) == ("{label}",)


def test_a_huge_picture_in_a_folder_is_not_read(tmp_path: Path) -> None:
    path = folder(tmp_path / "a", {"coat/1.png": b""})
    with (tmp_path / "a" / "coat" / "1.png").open("wb") as file:
        file.truncate(reading.MAX_ITEM_BYTES + 1)
    with pytest.raises(InputError, match=r"coat/1\.png has 268435457 bytes, expected at most"):
        list(items(EvalSet(name="a", path=path)))


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"data/test.parquet": b"PAR1"}, r"data/test\.parquet \(parquet\), teaser\.png \(folder\)"),
        ({"test/0.tar": b""}, r"teaser\.png \(folder\), test/0\.tar \(webdataset\)"),
        (
            {"t10k-images-idx3-ubyte": b""},
            r"t10k-images-idx3-ubyte \(idx\), teaser\.png \(folder\)",
        ),
        ({"test_batch": b"\x80"}, r"teaser\.png \(folder\), test_batch \(cifar\)"),
    ],
)
def test_a_folder_of_two_kinds_is_refused_unless_its_format_is_named(
    tmp_path: Path, files: dict[str, bytes], found: str
) -> None:
    evalset = EvalSet(name="a", path=folder(tmp_path / "a", {"teaser.png": b"", **files}))
    with pytest.raises(InputError, match=rf"holds {found}; say by format which of them to read"):
        format_of(evalset)
    assert format_of(evalset.model_copy(update={"format": "folder"})) == "folder"


def test_a_folder_with_pictures_is_one_of_pictures_whatever_else_lies_beside(
    tmp_path: Path,
) -> None:
    others = {
        "README.md": b"",
        "test": b"text",
        ".old.tar": b"",
        "meta.csv": b"",
        ".b/1.parquet": b"",
    }
    assert format_of(EvalSet(name="a", path=folder(tmp_path / "a", PICTURES | others))) == "folder"


def test_pictures_directly_in_a_split_are_of_it(tmp_path: Path) -> None:
    path = folder(tmp_path / "a", {"test/1.png": b"", "train/2.png": b""})
    found = items(EvalSet(name="a", path=path, split=("test",)))
    assert [(i.item, i.label, i.split) for i in found] == [("test/1.png", None, "test")]


def test_names_in_a_zip_that_lead_out_are_names_of_pictures(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", **{"../coat/1.png": b"one", "./coat/2.png": b"two"})
    found = items(EvalSet(name="a", path=path))
    assert [(i.item, i.data) for i in found] == [("coat/1.png", b"one"), ("coat/2.png", b"two")]


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_packed_by_what_unpacks_without_bound_is_refused(tmp_path: Path, method: int) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
        archive.writestr("coat/1.png", b"one")
    with pytest.raises(InputError, match=rf"coat/1\.png is packed by method {method}, expected"):
        list(items(EvalSet(name="a", path=str(tmp_path / "a.zip"))))


def test_a_zip_that_understates_a_picture_does_not_fill_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("coat/1.png", bytes(64 << 20))
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.find(b"PK\x01\x02") + 24, 1000)
    path.write_bytes(data)
    tracemalloc.start()
    with pytest.raises(InputError, match=r"coat/1\.png cannot be unpacked: Bad CRC"):
        list(items(EvalSet(name="a", path=str(path))))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 << 20


@pytest.mark.parametrize("place", range(46))
def test_a_damaged_directory_of_a_zip_is_one_line(tmp_path: Path, place: int) -> None:
    path = Path(zipped(tmp_path / "a.zip", **PICTURES))
    whole = path.read_bytes()
    for value in (0, 0x63, 0xFF):
        data = bytearray(whole)
        data[data.find(b"PK\x01\x02") + place] = value
        path.write_bytes(data)
        with suppress(InputError):
            found = list(items(EvalSet(name="a", path=str(path), format="zip")))
            assert {item.data for item in found} <= set(PICTURES.values())


DOCUMENTED = re.findall(
    r"```toml\n(.*?)```",
    (Path(__file__).parents[3] / "docs/evaluation_sets.md").read_text(encoding="utf-8"),
    re.DOTALL,
)


@pytest.mark.parametrize("example", DOCUMENTED)
def test_a_documented_example_is_understood(tmp_path: Path, example: str) -> None:
    assert read_evalsets(write(tmp_path / "sets.toml", example))


def test_documented_patterns_say_what_the_page_says() -> None:
    patterns = dict(re.findall(r"\[(\w+)\]\npath = .*\npattern = '(.*?)'", "\n".join(DOCUMENTED)))
    found = {
        "pets": ("images/great_pyrenees_12.jpg", ("great_pyrenees", "")),
        "sun397": (
            "SUN397/a/apartment_building/outdoor/sun_abc.jpg",
            ("apartment_building/outdoor", ""),
        ),
        "clevr": ("CLEVR_v1.0/images/val/CLEVR_val_000001.png", (None, "val")),
    }
    assert {name: reading.place_of(item, patterns[name]) for name, (item, _) in found.items()} == {
        name: place for name, (_, place) in found.items()
    }


def test_every_setting_is_documented() -> None:
    page = (Path(__file__).parents[3] / "docs/evaluation_sets.md").read_text(encoding="utf-8")
    table = page.partition("## Settings of a set")[2].partition("##")[0]
    for name in EvalSet.model_fields:
        assert name == "name" or f"`{name}`" in table
