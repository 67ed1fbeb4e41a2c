"""The vision transformer against a plain one of few lines: DeiT's and CLIP's, whole and in two parts."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from relvlm.config.vision import ViTConfig
from relvlm.encoders.packing import offsets_of
from relvlm.encoders.position import resize_positions
from relvlm.encoders.vit import QuickGELU, ViT

WIDTH, HEADS, PATCH, SIDE = 16, 4, 8, 3
CONFIG = ViTConfig(width=WIDTH, layers=3, heads=HEADS, patch_size=PATCH, mlp_ratio=2.5, late_blocks=2)
EPS = {"vit": 1e-6, "clip_vit": 1e-5}
KINDS = list(EPS)


def made(kind: str = "vit", image_size: int = SIDE * PATCH, **changes: float) -> ViT:
    """In fp64, with norms and biases that are not as new ones."""
    torch.manual_seed(0)
    vit = ViT(replace(CONFIG, kind=kind, **changes), image_size).double()
    for parameter in vit.parameters():
        nn.init.normal_(parameter, mean=0.1, std=0.4)
    return vit


def images(side: int = SIDE) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(2, 3, side * PATCH, side * PATCH).double()


def plain_early(vit: ViT, kind: str, pixels: Tensor, blocks: int) -> Tensor:
    """The tokens behind the first `blocks` blocks."""
    patches = pixels.unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH).permute(0, 2, 3, 1, 4, 5)
    x = patches.flatten(3).flatten(1, 2) @ vit.patch_embedding.weight.flatten(1).T
    x = x if kind == "clip_vit" else x + vit.patch_embedding.bias
    x = torch.cat([vit.class_token.expand(len(x), 1, WIDTH), x], dim=1) + vit.position
    x = norm(x, vit.pre_norm, kind) if kind == "clip_vit" else x
    return plain_blocks(vit, kind, x, slice(0, blocks))


def plain_blocks(vit: ViT, kind: str, x: Tensor, which: slice, hidden: Tensor | None = None) -> Tensor:
    for block in list(vit.blocks)[which]:
        x = x + attend(norm(x, block.norm1, kind), block.attention, hidden)
        first, _, second = block.mlp
        h = F.linear(norm(x, block.norm2, kind), first.weight, first.bias)
        h = h / (1 + (-1.702 * h).exp()) if kind == "clip_vit" else h * (1 + (h / math.sqrt(2)).erf()) / 2
        x = x + F.linear(h, second.weight, second.bias)
    return x


def norm(x: Tensor, part: nn.LayerNorm, kind: str) -> Tensor:
    return F.layer_norm(x, (WIDTH,), part.weight, part.bias, EPS[kind])


def attend(x: Tensor, part: nn.Module, hidden: Tensor | None) -> Tensor:
    x = x.transpose(0, 1)
    out, _ = F.multi_head_attention_forward(
        x, x, x, WIDTH, HEADS, part.qkv.weight, part.qkv.bias, None, None, False, 0.0, part.out.weight, part.out.bias,
        key_padding_mask=hidden,
    )  # fmt: skip
    return out.transpose(0, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_a_plain_vision_transformer(kind):
    vit = made(kind)
    expected = norm(plain_early(vit, kind, images(), 3), vit.norm, kind)
    torch.testing.assert_close(vit(images()), expected)
    assert {part.eps for part in vit.modules() if isinstance(part, nn.LayerNorm)} == {EPS[kind]}


@pytest.mark.parametrize("late", [1, 2, 3])
def test_the_last_blocks_and_the_norm_come_late(late):
    vit = made(late_blocks=late)
    early = vit.early(images())
    torch.testing.assert_close(early, plain_early(vit, "vit", images(), 3 - late))
    torch.testing.assert_close(vit.late(early), vit(images()))


@pytest.mark.parametrize("kind", KINDS)
def test_hidden_tokens_are_no_keys_of_the_late_blocks(kind):
    vit = made(kind)
    visible = torch.tensor([[1, 1, 0, 0, 1, 0, 1, 1, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0, 0, 1]]).bool()
    early = vit.early(images())
    expected = norm(plain_blocks(vit, kind, early, slice(1, 3), ~visible), vit.norm, kind)
    torch.testing.assert_close(vit.late(early, mask=visible), expected)
    packed = vit.late(early[visible], cu=offsets_of(visible.sum(1)))
    torch.testing.assert_close(packed, expected[visible])


def test_kept_patches_are_a_sequence_of_their_own():
    vit, kept = made(), torch.tensor([[8, 0, 3], [2, 4, 5]])
    tokens = plain_early(vit, "vit", images(), 0)
    few = torch.stack([torch.cat([x[:1], x[1 + rows]]) for x, rows in zip(tokens, kept, strict=True)])
    torch.testing.assert_close(vit.early(images(), kept), plain_blocks(vit, "vit", few, slice(0, 1)))
    expected = norm(plain_blocks(vit, "vit", few, slice(0, 3)), vit.norm, "vit")
    torch.testing.assert_close(vit(images(), kept), expected)


def test_smaller_images_have_the_table_resized_in_training_alone():
    vit, small = made(), made(image_size=2 * PATCH)
    state = vit.state_dict()
    small.load_state_dict(state | {"position": resize_positions(state["position"], 2)})
    torch.testing.assert_close(vit(images(2)), small(images(2)), rtol=1e-5, atol=1e-6)  # the table is resized in fp32
    with pytest.raises(RuntimeError, match="size"):
        vit.eval()(images(2))
    assert torch.equal(vit(images()), vit.train()(images()))


def test_dropout_is_of_the_embeddings_and_of_each_branch():
    vit = made(dropout=0.9)
    assert torch.equal(vit.eval()(images()), vit(images()))
    block, x = vit.train().blocks[0], torch.randn(2, 50, WIDTH).double()
    assert (block(x) == x).float().mean() == pytest.approx(0.9**2, abs=0.05)  # to these neither branch adds
    embedded = made(dropout=0.9, late_blocks=3).early(images())  # in front of all blocks
    assert (embedded == 0).float().mean() == pytest.approx(0.9, abs=0.05)


def test_clips_gelu_is_the_quick_one():
    x = torch.tensor([-1.0, 0.0, 2.0])
    expected = [-1 / (1 + math.exp(1.702)), 0.0, 2 / (1 + math.exp(-3.404))]
    assert QuickGELU()(x).tolist() == pytest.approx(expected)


def test_new_weights_are_as_wide_as_the_config_says():
    torch.manual_seed(0)
    vit = ViT(replace(CONFIG, width=192, init_std=0.05, position_std=0.3), 48)
    for part in (vit.patch_embedding, vit.blocks[0].attention.qkv, vit.blocks[2].mlp[2]):
        assert part.weight.std().item() == pytest.approx(0.05, rel=0.05) and not part.bias.any()
    assert vit.class_token.shape == (1, 1, 192)
    assert vit.class_token.std().item() == pytest.approx(0.05, rel=0.2)
    assert vit.position.shape == (1, 37, 192) and vit.position.std().item() == pytest.approx(0.3, rel=0.05)


def test_hidden_channels_are_a_ratio_of_the_width():
    mlp = made().blocks[0].mlp
    assert [tuple(part.weight.shape) for part in (mlp[0], mlp[2])] == [(40, 16), (16, 40)]
    assert made("clip_vit").patch_embedding.bias is None
