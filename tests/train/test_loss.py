import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference.contrastive import symmetric_loss
from train.loss import contrastive_loss


def unit_rows(rng: np.random.Generator, rows: int, width: int) -> np.ndarray:
    values = rng.normal(size=(rows, width))
    return values / np.linalg.norm(values, axis=1, keepdims=True)


@settings(deadline=None)
@given(
    rows=st.integers(1, 12),
    width=st.integers(1, 8),
    log_scale=st.floats(-3, 4.605),
    seed=st.integers(0, 2**32),
)
def test_the_loss_is_that_of_the_full_matrix_in_double_precision(
    rows: int, width: int, log_scale: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    image, text = unit_rows(rng, rows, width), unit_rows(rng, rows, width)
    expected = symmetric_loss(image, text, log_scale)
    for kind, tolerance in ((torch.float64, 1e-12), (torch.float32, 2e-5)):
        loss = contrastive_loss(
            torch.tensor(image, dtype=kind),
            torch.tensor(text, dtype=kind),
            torch.tensor(log_scale, dtype=kind),
        )
        assert loss.item() == pytest.approx(expected, rel=tolerance, abs=tolerance * 100)


def test_perfect_pairs_at_a_high_scale_cost_nothing_and_chance_costs_log_n() -> None:
    apart = torch.eye(8)
    assert contrastive_loss(apart, apart, torch.tensor(4.6)).item() < 1e-6
    same = torch.ones(8, 1)
    assert contrastive_loss(same, same, torch.tensor(2.0)).item() == pytest.approx(np.log(8))


def test_both_directions_count() -> None:
    image, text = torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    one_way = contrastive_loss(image, text, torch.tensor(1.0))
    other_way = contrastive_loss(text, image, torch.tensor(1.0))
    assert one_way.item() == pytest.approx(other_way.item())
    assert one_way.item() == pytest.approx(
        symmetric_loss(image.double().numpy(), text.double().numpy(), 1.0)
    )
