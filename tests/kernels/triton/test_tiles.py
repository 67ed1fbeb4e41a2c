"""Tiles as benchmarks/aot_check.py found them to spill no registers: whoever changes one has to compile it again."""

import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed")
from relvlm_kernels.triton import tiles

HALF, SINGLE = torch.bfloat16, torch.float32


@pytest.mark.parametrize(
    ("width", "dtype", "wanted"),
    [
        (64, HALF, (32, 32, 4, 3, 168)), (128, HALF, (32, 32, 4, 2, None)),
        (64, SINGLE, (16, 32, 4, 1, None)), (128, SINGLE, (16, 32, 8, 1, None)),
    ],
)  # fmt: skip
def test_forward(width, dtype, wanted):
    assert tiles.forward(width, dtype) == wanted


@pytest.mark.parametrize(
    ("width", "dtype", "wanted"),
    [
        (64, HALF, (32, 32, 4, 2, None)), (128, HALF, (32, 32, 4, 2, None)),
        (64, SINGLE, (16, 32, 8, 1, None)), (128, SINGLE, (16, 16, 8, 1, None)),
    ],
)  # fmt: skip
def test_backward_of_queries(width, dtype, wanted):
    assert tiles.backward_q(width, dtype) == wanted


@pytest.mark.parametrize(
    ("width", "dtype", "wanted"),
    [
        (32, HALF, (16, 64, 4, 1, None)), (64, HALF, (32, 32, 4, 2, None)), (128, HALF, (32, 32, 8, 1, None)),
        (64, SINGLE, (16, 32, 8, 1, None)), (128, SINGLE, (16, 32, 8, 1, None)),
    ],
)  # fmt: skip
def test_backward_of_keys(width, dtype, wanted):
    assert tiles.backward_kv(width, dtype) == wanted


def test_float16_is_as_bfloat16():
    for of in (tiles.forward, tiles.backward_q, tiles.backward_kv):
        assert of(64, torch.float16) == of(64, HALF)


def test_heads_of_128_are_the_widest_with_tiles():
    assert tiles.MAX_WIDTH == 128
