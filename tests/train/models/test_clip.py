import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.errors import ConfigError
from tests.train.small_models import RESNET, VIT, build
from train.models.clip import Clip, normalize_pixels
from train.models.image_tower import drop_patches
from train.models.recipes import ModelSpec, ResNetSpec
from train.models.resnet_tower import ModifiedResNet
from train.models.text_tower import Attention, QuickGELU
from train.samples.tokenizer import tokenize

# Names of open_clip's ViT and of OpenAI's ResNet, written down from their files.
VIT_NAMES = """
logit_scale positional_embedding text_projection token_embedding.weight ln_final.weight ln_final.bias
transformer.resblocks.0.attn.in_proj_weight transformer.resblocks.0.attn.in_proj_bias
transformer.resblocks.0.attn.out_proj.weight transformer.resblocks.0.attn.out_proj.bias
transformer.resblocks.0.ln_1.weight transformer.resblocks.0.ln_1.bias
transformer.resblocks.0.ln_2.weight transformer.resblocks.0.ln_2.bias
transformer.resblocks.0.mlp.c_fc.weight transformer.resblocks.0.mlp.c_fc.bias
transformer.resblocks.0.mlp.c_proj.weight transformer.resblocks.0.mlp.c_proj.bias
visual.class_embedding visual.positional_embedding visual.proj visual.conv1.weight
visual.ln_pre.weight visual.ln_pre.bias visual.ln_post.weight visual.ln_post.bias
"""
RESNET_NAMES = """
visual.conv1.weight visual.bn1.weight visual.bn1.running_mean visual.bn1.num_batches_tracked
visual.conv3.weight visual.bn3.bias visual.layer1.0.conv1.weight visual.layer1.0.bn3.running_var
visual.layer1.0.downsample.0.weight visual.layer1.0.downsample.1.running_mean
visual.layer2.1.conv2.weight visual.attnpool.positional_embedding visual.attnpool.k_proj.weight
visual.attnpool.q_proj.bias visual.attnpool.v_proj.weight visual.attnpool.c_proj.weight
"""


@pytest.mark.parametrize("spec", [VIT, RESNET])
def test_embeddings_are_of_unit_length_in_half_precision_too(spec: ModelSpec) -> None:
    model = build(spec)
    side = spec.resolution
    pixels = torch.randint(0, 256, (8, 3, side, side), dtype=torch.uint8)
    tokens = torch.randint(1, spec.text.vocabulary, (8, spec.text.context))
    with torch.autocast("cpu", torch.bfloat16):
        for rows in model(pixels, tokens):
            assert rows.dtype == torch.float32
            assert torch.allclose(rows.norm(dim=1), torch.ones(8), atol=1e-5)


def test_vit_weights_have_open_clips_names() -> None:
    found = set(build(VIT).state_dict())
    repeated = {name.replace("resblocks.1", "resblocks.0") for name in found}
    towers = {name.replace("visual.transformer", "transformer") for name in repeated}
    assert towers == set(VIT_NAMES.split())
    assert "visual.transformer.resblocks.1.mlp.c_fc.weight" in found


def test_resnet_weights_have_the_released_names() -> None:
    found = build(RESNET).state_dict()
    assert set(RESNET_NAMES.split()) <= set(found)
    assert "visual.layer2.1.downsample.0.weight" not in found


@pytest.mark.parametrize("spec", [VIT, RESNET], ids=["vit", "resnet"])
def test_embeddings_have_unit_length_and_every_weight_learns(spec: ModelSpec) -> None:
    model = build(spec)
    side = spec.resolution
    image = model.encode_image(torch.randint(0, 256, (4, 3, side, side), dtype=torch.uint8))
    text = model.encode_text(torch.from_numpy(tokenize(["a", "b c", "d", "e f g"], 12)))
    for embedded in (image, text):
        assert embedded.shape == (4, 16)
        torch.testing.assert_close(embedded.norm(dim=1), torch.ones(4))
    (image @ text.T * model.logit_scale.exp()).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_attention_is_torchs_multi_head_attention() -> None:
    torch.manual_seed(1)
    ours, torchs = Attention(24, 3), nn.MultiheadAttention(24, 3, batch_first=True)
    ours.load_state_dict(torchs.state_dict())
    tokens = torch.randn(2, 5, 24)
    mask = torch.full((5, 5), float("-inf")).triu(1)
    for causal in (False, True):
        expected, _ = torchs(tokens, tokens, tokens, attn_mask=mask if causal else None)
        torch.testing.assert_close(ours(tokens, causal=causal), expected)


def test_a_text_does_not_depend_on_what_follows_its_end() -> None:
    model = build(VIT)
    tokens = torch.from_numpy(tokenize(["a dog"], 12))
    padded = tokens.clone()
    padded[0, 5:] = 320
    torch.testing.assert_close(model.encode_text(tokens), model.encode_text(padded))


def test_pooling_is_attention_of_the_mean_over_all_places() -> None:
    torch.manual_seed(2)
    pool = ModifiedResNet(ResNetSpec(blocks=(1, 1, 1, 1), width=4, heads=2), resolution=64, embed=8)
    pool.initialize()
    head, maps = pool.attnpool, torch.randn(3, 128, 2, 2)
    places = maps.flatten(2).permute(2, 0, 1)
    tokens = torch.cat([places.mean(0, keepdim=True), places]) + head.positional_embedding[:, None]
    expected, _ = functional.multi_head_attention_forward(
        tokens[:1],
        tokens,
        tokens,
        128,
        2,
        None,
        torch.cat([head.q_proj.bias, head.k_proj.bias, head.v_proj.bias]),
        None,
        None,
        False,
        0.0,
        head.c_proj.weight,
        head.c_proj.bias,
        use_separate_proj_weight=True,
        q_proj_weight=head.q_proj.weight,
        k_proj_weight=head.k_proj.weight,
        v_proj_weight=head.v_proj.weight,
    )
    torch.testing.assert_close(head(maps), expected[0])


def test_temperature_begins_at_seven_hundredths_and_its_scale_stops_at_a_hundred() -> None:
    model = build(VIT)
    assert model.logit_scale.exp().item() == pytest.approx(1 / 0.07)
    with torch.no_grad():
        model.logit_scale.fill_(9.0)
    model.limit_logit_scale()
    assert model.logit_scale.item() == pytest.approx(math.log(100))


def test_pixels_are_centred_by_the_released_means() -> None:
    grey = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(1, 3, 1, 1) * 255
    assert normalize_pixels(grey.round().to(torch.uint8)).abs().max() < 0.01


def test_quick_gelu_is_chosen_by_the_spec() -> None:
    values: Tensor = torch.linspace(-2, 2, 5)
    torch.testing.assert_close(QuickGELU()(values), values * torch.sigmoid(1.702 * values))
    activations = {type(m) for m in build(VIT).modules() if isinstance(m, QuickGELU | nn.GELU)}
    assert activations == {QuickGELU}


def learn(model: Clip) -> dict[str, Tensor]:
    """Return gradients and statistics after two passes over the same pairs."""
    side = model.spec.resolution
    pixels = torch.arange(4 * 3 * side**2).remainder(253).to(torch.uint8).view(4, 3, side, side)
    text = torch.from_numpy(tokenize(["a", "b c", "d", "e f g"], 12))
    for _ in range(2):
        image = model.encode_image(pixels)
        (image @ model.encode_text(text).T).square().sum().backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return {**gradients, **{f"buffer {n}": b.clone() for n, b in model.named_buffers()}}


@pytest.mark.parametrize("spec", [VIT, RESNET], ids=["vit", "resnet"])
def test_checkpointing_changes_neither_gradients_nor_statistics(spec: ModelSpec) -> None:
    plain, anew = build(spec).train(), Clip(spec, checkpointing=True).train()
    anew.load_state_dict(plain.state_dict())
    expected, found = learn(plain), learn(anew)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def test_patches_left_out_depend_on_the_generator_alone() -> None:
    patches = torch.arange(3 * 10).float().view(3, 10, 1)
    first = drop_patches(patches, 0.6, torch.Generator().manual_seed(5))
    torch.manual_seed(9)
    again = drop_patches(patches, 0.6, torch.Generator().manual_seed(5))
    other = drop_patches(patches, 0.6, torch.Generator().manual_seed(6))
    assert first.shape == (3, 4, 1)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    for row, kept in enumerate(first.flatten(1).tolist()):
        assert len(set(kept)) == 4
        assert set(kept) <= set(range(10 * row, 10 * row + 10))


def test_every_patch_is_left_out_equally_often() -> None:
    patches = torch.arange(16).float().view(1, 16, 1).expand(4000, -1, -1)
    kept = drop_patches(patches, 0.75, torch.Generator().manual_seed(0))
    counts = torch.bincount(kept.flatten().long(), minlength=16)
    # 4,000 pictures keep a quarter: 1,000 each, five standard deviations are 137.
    assert (counts - 1000).abs().max() < 137


def test_patches_are_left_out_in_training_only_and_the_class_token_never() -> None:
    model = Clip(VIT, patch_dropout=0.99)
    model.initialize()
    pixels = torch.randint(0, 256, (2, 3, 16, 16))
    plain = build(VIT).eval()
    plain.load_state_dict(model.state_dict())
    assert torch.equal(model.eval().encode_image(pixels), plain.encode_image(pixels))
    seen: list[tuple[int, ...]] = []
    model.visual.ln_pre.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    model.train().encode_image(pixels)
    assert seen[0].shape == (2, 2, 32)
    first = model.visual.class_embedding + model.visual.positional_embedding[0]
    torch.testing.assert_close(seen[0][:, 0], first.expand(2, -1))


def test_a_resnet_has_no_patches_to_leave_out() -> None:
    with pytest.raises(ConfigError, match=r"patch dropout is 0\.5, but a ResNet has no patches"):
        Clip(RESNET, patch_dropout=0.5)


def test_a_bias_of_the_logits_is_there_when_asked_for() -> None:
    assert build(VIT).logit_bias is None
    bias = build(replace(VIT, logit_bias=True)).logit_bias
    assert bias is not None
    assert bias.item() == -10
