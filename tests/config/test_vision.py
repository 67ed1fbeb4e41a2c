"""What follows from a vision encoder's fields."""

import pytest

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
