import torch

from tests.train.small_models import RESNET, VIT, build
from train.learning.average import Average


def test_the_average_follows_the_weights_faster_at_first() -> None:
    model = build(VIT)
    average = Average(model, 0.5)
    first = model.logit_scale.item()
    with torch.no_grad():
        model.logit_scale += 1
    average.update(model, 1)
    assert average.model.logit_scale.item() == torch.tensor(first + 1 - 2 / 11).item()
    average.update(model, 1000)
    torch.testing.assert_close(average.model.logit_scale, torch.tensor(first + 1 - 1 / 11))
    assert not any(parameter.requires_grad for parameter in average.model.parameters())
    assert not average.model.training


def test_running_statistics_are_those_of_the_last_step() -> None:
    model = build(RESNET)
    average = Average(model, 0.9)
    model.train()(torch.rand(4, 3, 64, 64) * 255, torch.ones(4, 12, dtype=torch.long))
    average.update(model, 5)
    own = dict(average.model.named_buffers())
    assert own
    assert all(torch.equal(own[name], value) for name, value in model.named_buffers())


def test_an_average_goes_on_from_its_state() -> None:
    model = build(VIT)
    average, other = Average(model, 0.9), Average(model, 0.9)
    with torch.no_grad():
        model.logit_scale += 1
    average.update(model, 3)
    other.load_state_dict(average.state_dict())
    assert torch.equal(other.model.logit_scale, average.model.logit_scale)
