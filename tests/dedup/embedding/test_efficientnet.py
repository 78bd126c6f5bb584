import numpy as np
import onnxruntime
import pytest
import torch

from dedup.embedding import efficientnet
from tests.reference import efficientnet as plain


@pytest.fixture(scope="module")
def layers() -> list[efficientnet.Convolution]:
    return efficientnet.read_layers(efficientnet.weights_file())


@pytest.mark.parametrize("side", [64, 224])
def test_folded_layers_compute_what_the_plain_ones_do(
    layers: list[efficientnet.Convolution], side: int
) -> None:
    pictures = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(side))
    weights = torch.load(efficientnet.weights_file(), weights_only=True)
    expected = plain.embed(weights, pictures).numpy()
    session = onnxruntime.InferenceSession(
        efficientnet.as_onnx(layers), providers=["CPUExecutionProvider"]
    )
    by_onnx = session.run(None, {"pictures": pictures.numpy()})[0]
    by_torch = efficientnet.on_torch(layers, "cpu")(pictures).numpy()
    for features in (by_onnx, by_torch):
        assert features.shape == (2, efficientnet.FEATURES)
        unit = features / np.linalg.norm(features, axis=1, keepdims=True)
        np.testing.assert_allclose(unit, expected, atol=1e-5)
