from pathlib import Path

import pytest

from pipeline.errors import ConfigError, InputError, StorageError
from train.samples.source_settings import read_sources


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "sources.toml"
    path.write_text(text)
    return str(path)


def test_sources_are_read_with_paths_beside_their_file(tmp_path: Path) -> None:
    text = """
    [wit]
    path = "runs/first"
    [cc12m]
    path = "s3://bucket/cc12m/{00000..01242}.tar"
    weight = 0.5
    index = "indexes"
    [pets]
    path = "/data/pets"
    prompts = ["a photo of a {label}, a pet."]
    labels = { cat = "house cat" }
    """
    wit, cc12m, pets = read_sources(written(tmp_path, text))
    assert (wit.name, wit.path, wit.weight) == ("wit", f"{tmp_path}/runs/first", 1.0)
    assert (cc12m.path, cc12m.weight) == ("s3://bucket/cc12m/{00000..01242}.tar", 0.5)
    assert (cc12m.index, wit.index) == (f"{tmp_path}/indexes", "")
    assert pets.path == "/data/pets"
    assert pets.classes().prompts == ("a photo of a {label}, a pet.",)
    assert pets.classes().label("cat") == "house cat"
    assert wit.classes().prompts == ("a photo of a {label}.",)


def test_published_templates_go_by_name(tmp_path: Path) -> None:
    text = '[pets]\npath = "pets"\nprompts = "ensemble80"\n'
    (pets,) = read_sources(written(tmp_path, text))
    assert len(pets.classes().prompts) == 80


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("", "names no source"),
        ("[wit", "is no TOML"),
        ('path = "x"', "expected a table"),
        ("[wit]", "path is missing"),
        ('[wit]\npath = ""', "path is empty"),
        ('[wit]\npath = "x"\nweigth = 2', "weigth is not a setting"),
        ('[wit]\npath = "x"\nweight = 0', "expected greater than or equal to 0.001"),
        ('[wit]\npath = "x"\nweight = nan', "weight is nan"),
        ('[wit]\npath = "x"\nweight = 1e-300', "greater than or equal to 0.001"),
        ('[wit]\npath = "x"\n[cc]\nname = "wit"\npath = "y"', "cc.name is set"),
        ('["a b"]\npath = "x"', "expected letters"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path: Path, text: str, seen: str) -> None:
    with pytest.raises((ConfigError, InputError), match=seen) as error:
        read_sources(written(tmp_path, text))
    assert "\n" not in str(error.value)
    with pytest.raises(StorageError):
        read_sources(str(tmp_path / "none.toml"))


def test_wrong_templates_are_one_line(tmp_path: Path) -> None:
    (pets,) = read_sources(written(tmp_path, '[pets]\npath = "x"\nprompts = ["a photo"]\n'))
    with pytest.raises(ConfigError, match=r"source pets\.prompts is .*in every template"):
        pets.classes()
