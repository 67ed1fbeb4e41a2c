"""The packed fusion encoder: `read` rows equal those of the full output, and groups do not see each other."""

import pytest
import torch
from torch import Tensor

from relvlm.config.schema import FusionConfig, TextConfig
from relvlm.encoders.fusion import CrossAttention, FusionEncoder
from relvlm.encoders.spans import Spans
from relvlm_kernels import Regions

GRID = (2, 3)
OFFSETS = torch.tensor([0, 4, 4, 7, 9], dtype=torch.int32)
REGIONS = Regions(
    offsets=OFFSETS,
    image=torch.tensor([1, 0, 0, 1], dtype=torch.int32),
    box=torch.tensor([[0, 0, 3, 2], [0, 0, 1, 1], [1, 0, 3, 1], [2, 1, 3, 2]], dtype=torch.int32),
    prefix=torch.tensor([True, True, False, True]),
    mean=torch.tensor([False, False, True, True]),
    grid=GRID,
)
READ = [[0, 4, 7], [1, 2, 5, 8], [8], list(range(9))]


def make(norm: str, layers: int = 2) -> tuple[FusionEncoder, Tensor, Tensor]:
    torch.manual_seed(0)
    text = TextConfig(layers=1, heads=2, width=8, dropout=0.0, norm=norm, init_std=0.3)
    encoder = FusionEncoder(FusionConfig(layers=layers, heads=2), text, 6).double()
    return (
        encoder,
        torch.randn(9, 8).double().requires_grad_(),
        torch.randn(2, 7, 6).double().requires_grad_(),
    )


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("read", READ, ids=str)
def test_rows_read_equal_those_of_the_full_output_with_gradients(norm, read):
    encoder, x, image = make(norm)
    rows = torch.tensor(read)
    seed = torch.randn(len(read), 8).double()
    found, expected = encoder(x, image, REGIONS, rows), encoder(x, image, REGIONS)[rows]
    torch.testing.assert_close(found, expected)
    inputs = (x, image, *encoder.parameters())
    torch.testing.assert_close(torch.autograd.grad(found, inputs, seed), torch.autograd.grad(expected, inputs, seed))


def test_a_group_is_as_alone_with_its_image():
    encoder, x, image = make("post")
    together = encoder(x, image, REGIONS)
    for g in (0, 2, 3):
        start, end = OFFSETS[g].item(), OFFSETS[g + 1].item()
        one = REGIONS.pick(torch.tensor([g]), torch.tensor([0, end - start], dtype=torch.int32))
        torch.testing.assert_close(encoder(x[start:end], image, one), together[start:end])


def test_a_region_is_blind_to_the_patches_outside_its_box():
    encoder, x, image = make("post")
    before = encoder(x, image, REGIONS)
    changed = image.detach().clone()
    changed[0, 1] += 1.0  # patch (0, 0) of image 0, where group 2 sees columns 1 and 2
    changed[0, 0] += 1.0  # nor does it see the prefix
    assert torch.equal(encoder(x, changed, REGIONS)[4:7], before[4:7])
    changed[0, 2] += 1.0  # patch (0, 1)
    assert not torch.allclose(encoder(x, changed, REGIONS)[4:7], before[4:7])


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("read", [None, [0, 4, 8]], ids=str)
def test_packed_image_tokens_are_seen_as_a_whole_image_is(norm, read):
    """Groups of 4 and 3 rows at image 1, of 2 at image 0, whose tokens come in that order."""
    encoder, x, image = make(norm)
    offsets, rows = torch.tensor([0, 4, 7, 9], dtype=torch.int32), None if read is None else torch.tensor(read)
    whole = Regions.whole(offsets, torch.tensor([1, 1, 0], dtype=torch.int32), GRID)
    keys = torch.tensor([0, 7, 14], dtype=torch.int32)
    spans = Spans(offsets, torch.tensor([0, 7, 9], dtype=torch.int32), keys)
    found, expected = encoder(x, image[[1, 0]].flatten(0, 1), spans, rows), encoder(x, image, whole, rows)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("packed", [False, True], ids=["boxes", "sequences"])
def test_attention_weights_are_dropped_in_training_alone(packed):
    torch.manual_seed(0)
    attend, x, image = CrossAttention(8, 6, 2, dropout=0.5), torch.randn(9, 8), torch.randn(2, 7, 6)
    seen = REGIONS
    if packed:
        image, seen = image.flatten(0, 1), Spans(OFFSETS, OFFSETS[[0, 2, 4]], torch.tensor([0, 7, 14]).int())
    plain = attend.eval()(x, image, seen)
    assert torch.equal(plain, attend(x, image, seen))
    attend.dropout = 0.0
    torch.testing.assert_close(attend.train()(x, image, seen), plain)
    attend.dropout = 0.5
    assert not torch.isclose(attend(x, image, seen), plain).all(1).any()


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_norms_are_berts_and_the_last_one_is_a_pre_norm_encoders(norm):
    encoder, *_ = make(norm)
    norms = [part for part in encoder.modules() if isinstance(part, torch.nn.LayerNorm)]
    assert {part.eps for part in norms} == {1e-12} and len(norms) == 2 * 3 + (norm == "pre")
    assert isinstance(encoder.norm, torch.nn.LayerNorm) == (norm == "pre")


def test_one_layer_is_enough():
    encoder, x, image = make("post", layers=1)
    rows = torch.tensor([0, 4, 7])
    torch.testing.assert_close(encoder(x, image, REGIONS, rows), encoder(x, image, REGIONS)[rows])
