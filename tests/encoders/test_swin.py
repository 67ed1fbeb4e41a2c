"""The Swin transformer against attention written out over all tokens of a map, and what each part of it is."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from relvlm.config.vision import SwinConfig
from relvlm.encoders.swin import (
    PatchMerging,
    Swin,
    SwinBlock,
    WindowAttention,
    relative_position_index,
    shift_mask,
    windows_of,
)

CONFIG = SwinConfig(width=6, depths=[4, 2, 2], heads=[1, 2, 3], window=4, patch_size=2, mlp_ratio=1.5)


def randomised(module: nn.Module) -> nn.Module:
    """In fp64, with norms, biases and position tables that are not as new ones."""
    torch.manual_seed(0)
    for parameter in module.double().parameters():
        nn.init.normal_(parameter, mean=0.1, std=0.5)
    return module


def images(size: int) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(2, 3, size, size).double()


# ---- plainly: windows are an equality of places, not a reshaping -----------------------------------------


def plain(swin: Swin, pixels: Tensor, depths: list[int]) -> Tensor:
    patch = swin.patch_embedding
    side = patch.kernel_size[0]
    patches = pixels.unfold(2, side, side).unfold(3, side, side).permute(0, 2, 3, 1, 4, 5).flatten(3)
    x = norm(patches @ patch.weight.flatten(1).T + patch.bias, swin.patch_norm)
    for stage, depth in enumerate(depths):
        for place in range(depth):
            x = plain_block(swin.stages[stage][place], x, shifted=place in (1, 3))
        if stage + 1 < len(depths):
            x = merged(x, swin.merges[stage])
    return norm(x.flatten(1, 2), swin.norm)


def plain_block(block: SwinBlock, x: Tensor, shifted: bool) -> Tensor:
    x = x + plain_attention(block.attention, norm(x, block.norm1), min(CONFIG.window, x.shape[1]), shifted)
    first, _, second = block.mlp
    h = F.linear(norm(x, block.norm2), first.weight, first.bias)
    return x + F.linear(h * (1 + (h / math.sqrt(2)).erf()) / 2, second.weight, second.bias)


def plain_attention(part: WindowAttention, x: Tensor, side: int, shifted: bool) -> Tensor:
    """Each token attends to those of its window; the grid of windows is moved by half a window, off the map's edge."""
    resolution = x.shape[1]
    shift = side // 2 if shifted and resolution > side else 0
    y, across = (place.flatten() for place in torch.meshgrid(*[torch.arange(resolution)] * 2, indexing="ij"))
    down, right = y[:, None] - y, across[:, None] - across
    row, column = ((place - shift).div(side, rounding_mode="floor") for place in (y, across))
    together = (row[:, None] == row) & (column[:, None] == column)
    entry = torch.where(together, (down + side - 1) * (2 * side - 1) + right + side - 1, 0)
    bias = part.relative_position_bias[entry].permute(2, 0, 1).masked_fill(~together, -math.inf)
    heads = part.relative_position_bias.shape[1]
    q, k, v = (z.unflatten(-1, (heads, -1)).transpose(1, 2) for z in part.qkv(x.flatten(1, 2)).chunk(3, dim=-1))
    weights = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + bias).softmax(-1)
    return part.out((weights @ v).transpose(1, 2).flatten(2)).unflatten(1, (resolution, resolution))


def merged(x: Tensor, part: PatchMerging) -> Tensor:
    """Upper left, lower left, upper right, lower right."""
    four = [x[:, row::2, column::2] for row, column in ((0, 0), (1, 0), (0, 1), (1, 1))]
    return norm(torch.cat(four, -1), part.norm) @ part.reduction.weight.T


def norm(x: Tensor, part: nn.LayerNorm) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], part.weight, part.bias, 1e-5)


# ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [16, 32], ids=["maps of 8, 4, 2", "maps of 16, 8, 4"])
def test_it_is_attention_within_windows_shifted_in_every_second_block(size):
    """A map no larger than a window is one window, in the shifted blocks too."""
    swin = randomised(Swin(CONFIG, size))
    torch.testing.assert_close(swin(images(size)), plain(swin, images(size), CONFIG.depths))
    assert {part.eps for part in swin.modules() if isinstance(part, nn.LayerNorm)} == {1e-5}


def test_one_stage_has_no_merge():
    config = replace(CONFIG, depths=[1], heads=[2])
    swin = randomised(Swin(config, 8))
    torch.testing.assert_close(swin(images(8)), plain(swin, images(8), [1]))
    assert swin(images(8)).shape == (2, 16, 6)


def test_a_stage_has_twice_the_channels_and_half_the_side():
    swin = Swin(CONFIG, 16)
    assert [stage[0].norm1.weight.numel() for stage in swin.stages] == [6, 12, 24]
    assert [stage[0].side for stage in swin.stages] == [4, 4, 2]
    assert [[block.shift for block in stage] for stage in swin.stages] == [[0, 2, 0, 2], [0, 0], [0, 0]]
    mlp = swin.stages[1][0].mlp
    assert [tuple(part.weight.shape) for part in (mlp[0], mlp[2])] == [(18, 12), (12, 18)]
    assert swin(images(16).float()).shape == (2, 4, 24)


def test_windows_and_their_tokens_come_row_by_row():
    square = torch.arange(16.0).view(1, 4, 4, 1)
    assert windows_of(square, 2)[0, :, :, 0].tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]


def test_a_row_of_the_table_is_a_pair_of_offsets():
    """2 x 2 tokens: rows of 3 by how far down, from one up to one down, then how far to the right."""
    assert relative_position_index(2).tolist() == [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]]


def test_tokens_that_a_shift_brings_together_are_kept_apart():
    """A map of 4 x 4 in windows of 2, shifted by 1: the first window is whole, the last one is four corners."""
    mask = shift_mask(4, 2, 1)
    assert mask.shape == (4, 4, 4) and not mask[0].any()
    sides, apart = torch.tensor([[0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0]]), 1 - torch.eye(4)
    assert torch.equal(mask[1], -100.0 * sides)  # the right edge beside the left one
    assert torch.equal(mask[3], -100.0 * apart)


def test_blocks_are_left_out_more_often_the_deeper_they_lie():
    swin = Swin(replace(CONFIG, drop_path=0.35), 16)
    shares = [block.drop_path for stage in swin.stages for block in stage]
    assert shares == pytest.approx([0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35])
    only = Swin(replace(CONFIG, depths=[1], heads=[2], drop_path=0.3), 8)
    assert only.stages[0][0].drop_path == 0.0


def test_a_branch_is_left_out_of_whole_samples_and_its_mean_stays():
    torch.manual_seed(0)
    block, ones = SwinBlock(CONFIG, 6, 2, 4, shifted=False, drop_path=0.0).train(), torch.ones(4000, 3, 4, 5)
    dropped = block._drop(ones, 0.2)
    assert torch.equal(dropped, dropped[:, :1, :1, :1].expand_as(ones))
    kept = dropped[:, 0, 0, 0]
    assert kept.unique().tolist() == [0.0, 1.25] and kept.mean().item() == pytest.approx(1.0, abs=0.04)
    assert torch.equal(block._drop(ones, 0.0), ones)
    assert torch.equal(block.eval()._drop(ones, 0.2), ones)


def test_each_block_drops_by_its_own_share_in_training():
    swin = randomised(Swin(replace(CONFIG, depths=[1, 1], heads=[1, 2], drop_path=0.9), 8))
    torch.testing.assert_close(swin.eval()(images(8)), plain(swin, images(8), [1, 1]))
    pixels, seen = images(8)[:1].expand(200, 3, 8, 8), []
    for stage in swin.train().stages:
        stage[0].register_forward_hook(lambda block, given, x: seen.append((x == given[0]).flatten(1).all(1)))
    swin(pixels)
    first, second = (unchanged.float().mean().item() for unchanged in seen)
    assert first == 0.0 and second == pytest.approx(0.81, abs=0.1)  # without both of its branches


def test_dropout_is_of_the_embeddings_and_of_each_branch():
    torch.manual_seed(0)
    swin, pixels = Swin(replace(CONFIG, dropout=0.5), 16), images(16).float()
    assert not torch.equal(swin(pixels), swin(pixels))
    assert (swin.dropout(torch.ones(1000)) == 0).float().mean() == pytest.approx(0.5, abs=0.1)
    ones = torch.ones(50, 4, 4, 6)
    assert (swin.stages[0][0]._drop(ones, 0.0) == 0).float().mean() == pytest.approx(0.5, abs=0.05)
    swin.eval()
    assert torch.equal(swin(pixels), swin(pixels))


def test_new_weights_are_as_wide_as_the_config_says():
    torch.manual_seed(0)
    swin = Swin(SwinConfig(width=64, depths=[1, 1], heads=[2, 4], window=4, patch_size=4, init_std=0.05), 32)
    block = swin.stages[0][0]
    for part in (swin.patch_embedding, block.attention.qkv, block.mlp[2], swin.merges[0].reduction):
        assert part.weight.std().item() == pytest.approx(0.05, rel=0.05)
        assert part.bias is None or not part.bias.any()
    table = block.attention.relative_position_bias
    assert table.shape == (49, 2) and table.std().item() == pytest.approx(0.05, rel=0.3)
