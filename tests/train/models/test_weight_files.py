import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline.errors import InputError, StorageError
from train.models.weight_files import read_weight_file


class Scaled(nn.Module):
    """A model of two parts, one in half precision, and a number that is a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(3, 2), nn.Linear(2, 2)])
        self.norm = nn.BatchNorm1d(2)
        self.scale = nn.Parameter(torch.tensor([0.5, 65504.0], dtype=torch.float16))
        self.register_buffer("input_resolution", torch.tensor(224))

    def forward(self, rows: Tensor) -> Tensor:
        for layer in self.layers:
            rows = layer(rows)
        scaled: Tensor = self.norm(rows) * self.scale.float()
        return scaled


@pytest.fixture
def model() -> Scaled:
    torch.manual_seed(0)
    return Scaled().eval()


@pytest.fixture
def archive(tmp_path: Path, model: Scaled) -> Path:
    path = tmp_path / "model.pt"
    with pytest.warns(DeprecationWarning, match="torch.jit"):
        torch.jit.trace(model, torch.zeros(1, 3)).save(str(path))  # type: ignore[no-untyped-call]
    return path


def rewrite(path: Path, **records: bytes) -> None:
    """Replace records of an archive, "data_pkl" for data.pkl; all are stored without compression."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, records.get(Path(name).name.replace(".", "_"), data))


def test_a_torchscript_archive_gives_the_weights_of_its_model(archive: Path, model: Scaled) -> None:
    file = read_weight_file(str(archive))
    assert file.kind == "torchscript"
    assert set(file.content) == set(model.state_dict())
    for name, tensor in model.state_dict().items():
        assert file.content[name].dtype == tensor.dtype
        assert torch.equal(file.content[name], tensor), name


def test_torchscript_is_not_loaded_by_torch(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the archive's code would be compiled")

    monkeypatch.setattr(torch.jit, "load", refuse)
    monkeypatch.setattr(torch, "load", refuse)
    assert read_weight_file(str(archive)).content["scale"].tolist() == [0.5, 65504.0]


class Attack:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return (open, (str(self.marker), "w"))


def test_code_in_an_archives_pickle_is_not_run(archive: Path, tmp_path: Path) -> None:
    marker = tmp_path / "written"
    rewrite(archive, data_pkl=pickle.dumps(Attack(marker)))
    with pytest.raises(InputError, match="no whole file of weights"):
        read_weight_file(str(archive))
    assert not marker.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x02c__torch__\nA\n)\x81q\x00}X\x01\x00\x00\x00aK\x01sb",
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nK\x01\x85R.",
        b"\x80\x02ctorch\nQuantizedStorage\n.",
        b"\x80\x02(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x05\x00\x00\x0099999X\x03\x00\x00\x00cpuK\x01tQ.",
        b"\x80\x02K\x01Q.",
    ],
    ids=["empty", "no end", "no tensor", "unknown storage", "absent record", "no reference"],
)
def test_a_malformed_archive_is_one_line(archive: Path, data: bytes) -> None:
    rewrite(archive, data_pkl=data)
    with pytest.raises(InputError, match=r"model\.pt is no whole file of weights, expected"):
        read_weight_file(str(archive))


def tensor_pickle(shape: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    """Return the pickle of a module whose one weight is a view of record 0, in an archive's way."""

    def numbers(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(b"J" + v.to_bytes(4, "little", signed=True) for v in values) + b"t"

    storage = b"(X\x07\x00\x00\x00storagectorch\nHalfStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x02tQ"
    tensor = (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + storage
        + b"K\x00"
        + numbers(shape)
        + numbers(stride)
        + b"\x89ccollections\nOrderedDict\n)RtR"
    )
    return b"\x80\x02c__torch__\nA\n)\x81}(X\x01\x00\x00\x00w" + tensor + b"ub."


def test_a_weight_is_never_larger_than_what_the_file_holds(archive: Path) -> None:
    rewrite(archive, data_pkl=tensor_pickle((2,), (1,)))
    assert read_weight_file(str(archive)).content["w"].tolist() == [0.5, 65504.0]
    for shape, stride in [((1_000_000, 1_000_000), (0, 0)), ((2,), (2,)), ((-1,), (1,))]:
        rewrite(archive, data_pkl=tensor_pickle(shape, stride))
        with pytest.raises(InputError, match="no whole file"):
            read_weight_file(str(archive))


def test_a_module_that_holds_itself_ends(archive: Path) -> None:
    rewrite(archive, data_pkl=b"\x80\x02c__torch__\nA\n)\x81q\x00}X\x01\x00\x00\x00ah\x00sb.")
    assert read_weight_file(str(archive)).content == {}


def test_compressed_records_are_refused(archive: Path) -> None:
    with zipfile.ZipFile(archive) as source:
        content = {name: source.read(name) for name in source.namelist()}
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
        for name, data in content.items():
            target.writestr(name, data)
    with pytest.raises(InputError, match="no whole file"):
        read_weight_file(str(archive))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_of_any_kind_is_one_line(
    archive: Path, tmp_path: Path, model: Scaled, share: float
) -> None:
    torch.save(model.state_dict(), tmp_path / "torch.pt")
    save_file(model.state_dict(), tmp_path / "a.safetensors")
    for path in (archive, tmp_path / "torch.pt", tmp_path / "a.safetensors"):
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
        with pytest.raises(InputError, match="no whole file of weights"):
            read_weight_file(str(path))


def test_a_flipped_bit_in_an_archive_is_noticed(archive: Path) -> None:
    data = bytearray(archive.read_bytes())
    data[data.index(torch.tensor([0.5, 65504.0]).half().numpy().tobytes())] ^= 1
    archive.write_bytes(data)
    with pytest.raises(InputError, match="no whole file"):
        read_weight_file(str(archive))


def test_safetensors_are_read(tmp_path: Path, model: Scaled) -> None:
    save_file(model.state_dict(), tmp_path / "a.bin")
    file = read_weight_file(str(tmp_path / "a.bin"))
    assert file.kind == "safetensors"
    assert torch.equal(file.content["scale"], model.scale)


def test_what_is_saved_must_be_named(tmp_path: Path) -> None:
    torch.save([torch.zeros(2)], tmp_path / "a.pt")
    with pytest.raises(InputError, match="holds a list, expected weights by name"):
        read_weight_file(str(tmp_path / "a.pt"))


@pytest.mark.parametrize(
    "data", [b"version https://git-lfs.github.com/spec/v1\n", b"<html>", b"PK\x03\x04 no archive"]
)
def test_another_kind_of_file_is_one_line(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.pt").write_bytes(data)
    with pytest.raises(InputError, match=r"no whole file of weights, .*download it again"):
        read_weight_file(str(tmp_path / "a.pt"))


def test_an_absent_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot read"):
        read_weight_file(str(tmp_path / "absent.pt"))
