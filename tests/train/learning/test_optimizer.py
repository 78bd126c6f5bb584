import math
from itertools import pairwise

import pytest
import torch

from pipeline.errors import ConfigError, InputError
from pipeline.runtime.settings import read_settings
from train.config import TrainConfig, make_plan
from train.learning.optimizer import learning_rate, make_optimizer, set_learning_rate
from train.models.clip import Clip
from train.models.recipes import ModelSpec, ResNetSpec, TextSpec

CONFIG = TrainConfig(model="ViT-mini", steps=100, warmup_steps=10, learning_rate=0.5, batch_size=4)


def test_the_rate_rises_to_its_highest_and_falls_along_half_a_cosine() -> None:
    plan = make_plan(CONFIG, 1000)
    rates = [learning_rate(step, plan) for step in range(100)]
    assert rates[:10] == pytest.approx([0.05 * (i + 1) for i in range(10)])
    assert rates[10] == 0.5
    assert rates[55] == pytest.approx(0.25)
    assert rates[99] == pytest.approx(0.25 * (1 + math.cos(math.pi * 89 / 90)))
    assert all(later < earlier for earlier, later in pairwise(rates[10:]))


def test_without_warm_up_the_first_step_has_the_highest_rate() -> None:
    plan = make_plan(CONFIG.model_copy(update={"warmup_steps": 0}), 1000)
    assert learning_rate(0, plan) == 0.5


def test_gains_biases_and_the_temperature_do_not_decay() -> None:
    spec = ModelSpec(
        embed=8,
        resolution=64,
        image=ResNetSpec(blocks=(1, 1, 1, 1), width=4, heads=2),
        text=TextSpec(width=8, heads=1, layers=1, context=8),
    )
    model = Clip(spec)
    optimizer = make_optimizer(model, make_plan(CONFIG, 1000))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decay = {names[id(p)]: g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert set(decay) == set(names.values())
    free = {name for name, rate in decay.items() if rate == 0}
    expected = {n for n in decay if n.endswith("bias") or "bn" in n or "ln_" in n}
    norms = {n for n in decay if n.endswith("downsample.1.weight")}
    assert free == expected | norms | {"logit_scale"}
    assert set(decay.values()) == {0.0, 0.2}


def test_a_step_is_the_papers_decoupled_decay() -> None:
    weight = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        weight.weight.fill_(1.0)
    optimizer = make_optimizer(weight, make_plan(CONFIG, 1000))
    set_learning_rate(optimizer, 0.1)
    weight.weight.grad = torch.zeros(1, 1)
    optimizer.step()
    assert weight.weight.item() == pytest.approx(1 - 0.1 * 0.2)


def test_settings_come_before_the_recipe_and_epochs_become_steps() -> None:
    plan = make_plan(TrainConfig(model="ViT-mini", epochs=3, batch_size=64), 1000)
    assert (plan.steps, plan.batch_size, plan.weight_decay) == (47, 64, 0.2)
    paper = make_plan(TrainConfig(), 400_000_000)
    assert (paper.steps, paper.batch_size) == (390_625, 32_768)
    assert paper.model.quick_gelu
    assert not make_plan(TrainConfig(quick_gelu=False), 400_000_000).model.quick_gelu


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch_size": 1001}, r"train\.batch_size is 1001, expected at most the 1000 samples"),
        (
            {"steps": 10, "warmup_steps": 10},
            r"train\.warmup_steps is 10, expected fewer than the 10",
        ),
    ],
)
def test_numbers_that_do_not_fit_the_shards_are_one_line(
    values: dict[str, int], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        make_plan(TrainConfig(model="ViT-mini").model_copy(update=values), 1000)


def test_steps_and_epochs_exclude_each_other() -> None:
    with pytest.raises(
        ConfigError, match=r"^train: expected steps \(5\) or epochs \(2\), not both$"
    ):
        read_settings(TrainConfig, {"steps": 5, "epochs": 2}, where="train")


def test_no_samples_are_one_line() -> None:
    with pytest.raises(InputError, match="shard holds no samples"):
        make_plan(CONFIG, 0)
