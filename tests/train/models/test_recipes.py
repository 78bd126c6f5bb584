from dataclasses import asdict
from typing import get_args

import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.runtime.settings import read_settings
from train.config import TrainConfig
from train.models.clip import Clip, count_parameters
from train.models.recipes import ModelName, find_recipe, spec_from_dict

PARAMETERS = {
    "RN50": (102_007_137, 38_316_896),
    "RN101": (119_688_033, 56_259_936),
    "RN50x4": (178_300_601, 87_137_080),
    "RN50x16": (290_979_217, 167_328_912),
    "RN50x64": (623_258_305, 420_380_352),
    "ViT-B/32": (151_277_313, 87_849_216),
    "ViT-B/16": (149_620_737, 86_192_640),
    "ViT-L/14": (427_616_513, 303_966_208),
    "ViT-L/14-336": (427_944_193, 304_293_888),
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_model_has_as_many_parameters_as_the_released_one(name: ModelName) -> None:
    with torch.device("meta"):
        model = Clip(find_recipe(name).model)
    assert (count_parameters(model), count_parameters(model.visual)) == PARAMETERS[name]


@pytest.mark.parametrize("name", get_args(ModelName))
def test_every_name_has_a_recipe_whose_model_survives_being_stored(name: ModelName) -> None:
    spec = find_recipe(name).model
    assert spec_from_dict(asdict(spec)) == spec


@pytest.mark.parametrize(
    ("name", "rate", "beta2", "epsilon"),
    [
        ("RN50", 5e-4, 0.999, 1e-8),
        ("RN50x16", 4e-4, 0.999, 1e-8),
        ("RN50x64", 3.6e-4, 0.999, 1e-8),
        ("ViT-B/32", 5e-4, 0.98, 1e-6),
        ("ViT-L/14", 4e-4, 0.98, 1e-6),
        ("ViT-L/14-336", 2e-5, 0.98, 1e-6),
    ],
)
def test_recipes_have_the_papers_hyper_parameters(
    name: ModelName, rate: float, beta2: float, epsilon: float
) -> None:
    recipe = find_recipe(name)
    assert (recipe.learning_rate, recipe.beta2, recipe.epsilon) == (rate, beta2, epsilon)
    assert (recipe.batch_size, recipe.warmup_steps, recipe.weight_decay) == (32_768, 2_000, 0.2)
    assert recipe.epochs == (1 if name == "ViT-L/14-336" else 32)


def test_an_unknown_model_is_one_line_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"train\.model is 'ViT-Z', expected 'RN50'.*'ViT-mini'"):
        read_settings(TrainConfig, {"model": "ViT-Z"}, where="train")
