"""Both vision encoders behind one shape: a first token, then the patches row by row."""

from dataclasses import replace

import pytest
import torch

from relvlm.config.vision import SwinConfig, ViTConfig
from relvlm.encoders.position import position_resizer, resize_positions
from relvlm.encoders.vision import VisionEncoder
from relvlm.errors import UserError
from relvlm_kernels.regions import box_mask

VIT = ViTConfig(width=16, layers=2, heads=2, patch_size=8)
SWIN = SwinConfig(width=8, heads=[2, 4], patch_size=4, depths=[1, 1], window=4)


@pytest.mark.parametrize(("config", "width"), [(VIT, 16), (SWIN, 16)], ids=["vit", "swin"])
def test_one_prefix_token_and_a_square_of_patches(config, width):
    torch.manual_seed(0)
    encoder = VisionEncoder(config, 32)
    assert encoder.grid == (4, 4) and encoder.width == width and encoder.prefix == 1
    assert encoder(torch.randn(2, 3, 32, 32)).shape == (2, 1 + 16, width)


def test_first_token_of_swin_is_the_mean_of_its_patches():
    torch.manual_seed(0)
    tokens = VisionEncoder(SWIN, 32)(torch.randn(2, 3, 32, 32))
    torch.testing.assert_close(tokens[:, 0], tokens[:, 1:].mean(1))


@pytest.mark.parametrize("config", [VIT, SWIN], ids=["vit", "swin"])
def test_patches_come_row_by_row(config):
    """A change of the pixels of one place changes the token of that place most."""
    torch.manual_seed(0)
    encoder = VisionEncoder(config, 32).eval()
    pixels = torch.zeros(1, 3, 32, 32)
    changed = pixels.clone()
    changed[:, :, 8:16, 16:24] = 5.0  # row 1, column 2
    difference = (encoder(changed) - encoder(pixels))[0, 1:].norm(dim=-1)
    assert difference.argmax() == 1 * 4 + 2


@pytest.mark.parametrize("config", [VIT, SWIN], ids=["vit", "swin"])
def test_every_parameter_is_used(config):
    encoder = VisionEncoder(config, 32)
    encoder(torch.randn(1, 3, 32, 32)).sum().backward()
    assert [n for n, p in encoder.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("config", [VIT, SWIN], ids=["vit", "swin"])
def test_fp32_pixels_go_into_a_bf16_encoder(config):
    """DeepSpeed makes the weights bf16 and leaves the batch, which is no tensor, as it is."""
    encoder = VisionEncoder(config, 32).bfloat16()
    tokens = encoder(torch.randn(1, 3, 32, 32))
    assert tokens.dtype == torch.bfloat16 and tokens.isfinite().all()


def test_a_swin_needs_an_image_size_that_its_stages_divide():
    with pytest.raises(UserError, match=r"model\.image_size: 36 is no multiple of 8"):
        VisionEncoder(SWIN, 36)


def test_vit_norms_have_the_eps_of_vit():
    norms = [m for m in VisionEncoder(VIT, 32).modules() if isinstance(m, torch.nn.LayerNorm)]
    assert norms and {norm.eps for norm in norms} == {1e-6}


def test_a_swin_needs_maps_that_its_windows_divide():
    with pytest.raises(UserError, match=r"model\.vision\.window: 3 does not divide a map of 8 x 8"):
        VisionEncoder(replace(SWIN, window=3), 32)
    with pytest.raises(UserError, match=r"4 does not divide a map of 6 x 6"):  # of the second stage
        VisionEncoder(SWIN, 48)


def test_a_map_smaller_than_a_window_is_one_window():
    tokens = VisionEncoder(replace(SWIN, window=16), 32)(torch.randn(1, 3, 32, 32))
    assert tokens.shape == (1, 17, 16)


@pytest.mark.parametrize("kind", ["vit", "clip_vit"])
def test_packed_late_regions_equal_masked_copies_inside_the_box(kind):
    torch.manual_seed(0)
    encoder = VisionEncoder(replace(VIT, kind=kind, layers=3, late_blocks=2), 32).double()
    pixels, box = torch.randn(2, 3, 32, 32), torch.tensor([[1, 0, 3, 2], [0, 0, 4, 4], [3, 3, 4, 4]])
    image = torch.tensor([1, 0, 1])
    tokens, cu = encoder.late_regions(pixels, image, box.int(), images=True)
    torch.testing.assert_close(tokens[: 2 * 17].unflatten(0, (2, 17)), encoder(pixels))
    mask = torch.cat([torch.ones(3, 1, dtype=torch.bool), box_mask(box, (4, 4))], dim=1)
    copies = encoder.masked_regions(pixels, image, mask)
    torch.testing.assert_close(tokens[2 * 17 :], copies[mask])
    assert cu.tolist() == [0, 17, 34, 39, 56, 58]
    alone, cu = encoder.late_regions(pixels, image, box.int(), images=False)
    torch.testing.assert_close(alone, copies[mask])
    assert cu.tolist() == [0, 5, 22, 24]
    counted, _ = encoder.late_regions(pixels, image, box.int(), images=False, patches=4 + 16 + 1)
    assert torch.equal(counted, alone)


def test_a_swin_has_no_late_masking():
    with pytest.raises(ValueError, match="late vision masking needs a ViT"):
        VisionEncoder(SWIN, 32).masked_regions(torch.randn(1, 3, 32, 32), torch.tensor([0]), torch.ones(1, 17))


@pytest.mark.parametrize("kind", ["vit", "clip_vit"])
def test_kept_patches_have_their_own_positions_and_see_each_other_alone(kind):
    """As in the whole sequence with all other patches hidden, in every block."""
    torch.manual_seed(0)
    encoder = VisionEncoder(replace(VIT, kind=kind, late_blocks=2), 32)
    pixels, kept = torch.randn(2, 3, 32, 32), torch.tensor([[3, 0, 14], [7, 8, 2]])
    mask = torch.zeros(2, 17, dtype=torch.bool)
    mask[:, 0] = True
    mask.scatter_(1, 1 + kept, True)
    whole = encoder.masked_regions(pixels, torch.arange(2), mask)
    rows = torch.cat([torch.zeros(2, 1, dtype=torch.long), 1 + kept], dim=1)
    expected = torch.stack([tokens[row] for tokens, row in zip(whole, rows, strict=True)])
    torch.testing.assert_close(encoder(pixels, kept), expected)


def test_all_patches_kept_in_another_order_are_the_same_tokens():
    torch.manual_seed(0)
    encoder, pixels = VisionEncoder(VIT, 32), torch.randn(2, 3, 32, 32)
    order = torch.stack([torch.randperm(16), torch.arange(16)])
    found, whole = encoder(pixels, order), encoder(pixels)
    torch.testing.assert_close(found[:, 0], whole[:, 0])
    torch.testing.assert_close(found[0, 1:], whole[0, 1 + order[0]])
    torch.testing.assert_close(found[1], whole[1])


def test_patches_are_drawn_anew_for_each_image_and_step():
    torch.manual_seed(0)
    encoder, pixels = VisionEncoder(replace(VIT, patch_keep=0.5), 32), torch.zeros(64, 3, 32, 32)
    first, second = encoder.draw_patches(pixels).sort().values, encoder.draw_patches(pixels).sort().values
    assert first.shape == (64, 8) and (first.diff() > 0).all() and first.min() == 0 and first.max() == 15
    assert not torch.equal(first[0], first[1]) and not torch.equal(first, second)
    often = torch.cat([first, second]).flatten().bincount()
    assert often.min() > 40 and often.max() < 90  # 64 each are expected
    small = torch.zeros(2, 3, 16, 16)
    assert encoder.draw_patches(small).shape == (2, 2)
    assert VisionEncoder(replace(VIT, patch_keep=0.01), 32).draw_patches(pixels).shape == (64, 1)


def test_no_patch_is_dropped_in_evaluation_or_by_default():
    pixels = torch.zeros(1, 3, 32, 32)
    assert VisionEncoder(replace(VIT, patch_keep=0.5), 32).eval().draw_patches(pixels) is None
    assert VisionEncoder(VIT, 32).draw_patches(pixels) is None
    assert VisionEncoder(SWIN, 32).draw_patches(pixels) is None


def test_a_grid_is_of_rows_and_columns():
    assert VisionEncoder(VIT, 32).grid_of(torch.zeros(1, 3, 16, 24)) == (2, 3)


def test_a_swin_drops_no_patches():
    with pytest.raises(ValueError, match="dropped patches"):
        VisionEncoder(SWIN, 32)(torch.zeros(1, 3, 32, 32), torch.tensor([[0]]))


def test_smaller_images_are_encoded_as_by_a_model_of_their_size():
    """One whose position table is the resized one; the table itself learns from them."""
    torch.manual_seed(0)
    encoder, small = (
        VisionEncoder(replace(VIT, late_blocks=1), 32),
        VisionEncoder(replace(VIT, late_blocks=1), 24),
    )
    state = encoder.state_dict()
    table = state["backbone.position"]
    small.load_state_dict(state | {"backbone.position": resize_positions(table, 3)})
    pixels, box = torch.randn(2, 3, 24, 24), torch.tensor([[1, 0, 3, 2]], dtype=torch.int32)
    assert encoder.grid_of(pixels) == (3, 3) == small.grid
    torch.testing.assert_close(encoder(pixels), small(pixels))
    image = torch.tensor([1])
    found, expected = (e.late_regions(pixels, image, box, images=True) for e in (encoder, small))
    torch.testing.assert_close(found, expected)
    encoder(pixels).square().sum().backward()
    assert (encoder.backbone.position.grad != 0).all()


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("config", [VIT, SWIN], ids=["vit", "swin"])
@pytest.mark.parametrize("size", [(24, 24), (64, 64), (16, 64), (64, 32), (34, 34), (8, 8)])
def test_images_of_another_size_are_refused(config, training, size):
    """A Swin's windows divide some of them, a ViT has as many positions as others have patches."""
    encoder, pixels = VisionEncoder(config, 32).train(training), torch.zeros(2, 3, *size)
    if training and config is VIT and size in ((24, 24), (64, 64), (8, 8)):  # positions are resized
        assert encoder(pixels).shape == (2, 1 + (size[0] // 8) ** 2, 16)
        return
    with pytest.raises(ValueError, match=f"images of {size[0]} x {size[1]} pixels: this model's are 32 x 32"):
        encoder(pixels)


@pytest.mark.parametrize(("old", "new"), [(4, 3), (14, 10), (3, 5)])
def test_the_matrix_of_resized_positions_is_their_interpolation(old, new):
    torch.manual_seed(0)
    table = torch.randn(1, 1 + old**2, 5)
    resized = position_resizer(old, new, table.device) @ table
    torch.testing.assert_close(resized, resize_positions(table, new))
