import torch
from torch.nn import functional

from train.evaluation.templates import fill
from train.evaluation.zeroshot import average, class_embeddings, rank_classes
from train.models.clip import Clip
from train.models.recipes import ModelSpec, TextSpec, VitSpec
from train.samples.tokenizer import tokenize


def test_separable_features_are_ranked_without_a_mistake() -> None:
    torch.manual_seed(0)
    classes = functional.normalize(torch.randn(7, 32), dim=1)
    truth = torch.arange(70) % 7
    pictures = functional.normalize(classes[truth] + 0.05 * torch.randn(70, 32), dim=1)
    order = rank_classes(pictures, classes)
    assert order[:, 0].tolist() == truth.tolist()
    assert order.sort(dim=1).values.tolist() == [list(range(7))] * 70


def test_of_equally_similar_classes_the_first_stays_first() -> None:
    assert rank_classes(torch.ones(1, 1), torch.ones(5, 1)).tolist() == [[0, 1, 2, 3, 4]]


def test_prompts_are_averaged_as_embeddings() -> None:
    spec = ModelSpec(
        embed=8,
        resolution=8,
        image=VitSpec(layers=1, width=8, heads=1, patch=4),
        text=TextSpec(width=16, heads=2, layers=1, context=16),
    )
    torch.manual_seed(0)
    model = Clip(spec)
    model.initialize()
    templates = ("a photo of a {label}.", "{label}")
    found = class_embeddings(model, ["cat", "dog"], templates, device=torch.device("cpu"))
    with torch.no_grad():
        alone = model.encode_text(torch.from_numpy(tokenize(["a photo of a dog.", "dog"], 16)))
    expected = (alone[0] + alone[1]) / (alone[0] + alone[1]).norm()
    torch.testing.assert_close(found[1], expected)
    torch.testing.assert_close(average(alone), expected)
    assert fill(templates, "dog") == ["a photo of a dog.", "dog"]
