"""What follows from a vision encoder's fields."""

import pytest
from support.limits import limits

from relvlm.config.vision import SwinConfig, ViTConfig


def test_a_vit_has_one_width_and_stride():
    vit = ViTConfig(width=32, patch_size=8)
    assert (vit.output_width, vit.stride) == (32, 8)


def test_a_swin_doubles_both_with_each_stage():
    swin = SwinConfig(width=16, patch_size=4, depths=[1, 1, 1], heads=[1, 2, 4])
    assert (swin.output_width, swin.stride) == (64, 16)


@pytest.mark.parametrize(("share", "kept"), [(1.0, 49), (0.5, 24), (0.52, 25), (0.001, 1)])
def test_a_vit_keeps_a_share_of_the_patches_and_one_at_least(share, kept):
    assert ViTConfig(patch_keep=share).kept_patches(49) == kept


def test_a_swin_keeps_all_patches():
    assert SwinConfig().kept_patches(49) == 49


def test_a_vit_is_vit_b_16_where_nothing_else_is_said():
    vit = ViTConfig()
    assert (vit.width, vit.layers, vit.heads, vit.patch_size, vit.mlp_ratio) == (768, 12, 12, 16, 4.0)
    assert (vit.dropout, vit.init_std, vit.position_std, vit.patch_keep) == (0.0, 0.02, 0.02, 1.0)
    assert vit.late_blocks == 4  # X-VLM's local_attn_depth


def test_a_swin_is_swin_b_where_nothing_else_is_said():
    swin = SwinConfig()
    assert (swin.width, swin.depths, swin.heads) == (128, [2, 2, 18, 2], [4, 8, 16, 32])
    assert (swin.window, swin.patch_size, swin.mlp_ratio) == (7, 4, 4.0)
    assert (swin.drop_path, swin.dropout, swin.init_std) == (0.0, 0.0, 0.02)


def test_limits_stay_as_they_are():
    assert limits("model.vision.") == {
        "at least 1 and at most 65,536": "model.vision.width",
        "at least 1 and at most 1,000": "model.vision.layers",
        "at least 1 and at most 1,024": "model.vision.heads",
        "at least 1 and at most 4,096": "model.vision.patch_size model.vision.window",
        "above 0 and at most 64": "model.vision.mlp_ratio",
        "at least 0 and below 1": "model.vision.drop_path model.vision.dropout",
        "at least 0 and at most 100": "model.vision.init_std model.vision.position_std",
        "above 0 and at most 1": "model.vision.patch_keep",
        "at least 0 and at most 1,000": "model.vision.late_blocks",
        "1 to 10 entries, each at least 1 and at most 1,000": "model.vision.depths",
        "1 to 10 entries, each at least 1 and at most 1,024": "model.vision.heads",
    }
