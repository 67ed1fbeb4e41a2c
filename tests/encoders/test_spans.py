"""Groups in any order that look at packed image tokens: the same as each group with its own copy of them."""

import torch

from relvlm.config.schema import FusionConfig, TextConfig
from relvlm.encoders.fusion import FusionEncoder
from relvlm.encoders.packing import offsets_of
from relvlm.encoders.spans import fuse_spans
from relvlm_kernels import Regions

TEXT = TextConfig(width=16, heads=2, dropout=0.0)


def test_groups_share_sequences_in_any_order():
    torch.manual_seed(0)
    fusion = FusionEncoder(FusionConfig(layers=2, heads=2), TEXT, 8).double()
    lengths, sequence = torch.tensor([3, 1, 4, 2, 2]), torch.tensor([2, 0, 2, 1, 0])
    text, image = (
        torch.randn(12, 16).double(),
        torch.randn(3, 5, 8).double(),
    )  # sequence 1 of 3 has 5 tokens, too
    cu, key_cu = offsets_of(lengths), offsets_of(torch.tensor([5, 5, 5]))
    found = fuse_spans(fusion, text, cu, image.flatten(0, 1), key_cu, sequence)
    regions = Regions.whole(cu, sequence.int(), (2, 2))
    expected = fusion(text, image, regions)
    torch.testing.assert_close(found, expected)
    read = torch.tensor([0, 3, 4, 8, 10, 1])  # in any order
    torch.testing.assert_close(
        fuse_spans(fusion, text, cu, image.flatten(0, 1), key_cu, sequence, read), expected[read]
    )


def test_a_sequence_that_nothing_looks_at_is_no_harm():
    torch.manual_seed(0)
    fusion = FusionEncoder(FusionConfig(layers=1, heads=2), TEXT, 8).double()
    text, image = torch.randn(3, 16).double(), torch.randn(6, 8).double()
    cu, key_cu = offsets_of(torch.tensor([3])), offsets_of(torch.tensor([2, 3, 1]))
    alone = fuse_spans(fusion, text, cu, image[2:5], offsets_of(torch.tensor([3])), torch.tensor([0]))
    torch.testing.assert_close(fuse_spans(fusion, text, cu, image, key_cu, torch.tensor([1])), alone)
