"""Dropout of attention: a function of the seed and of places, the same forward and backward, kept on average."""

import pytest
import torch
from support.attention_cases import small_attention, small_qkv

from relvlm_kernels import dropout, varlen_attention

SEED = torch.tensor([2**40 + 7])


ONES = 0xFFFFFFFF
PI = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0)


@pytest.mark.parametrize(
    ("counter", "key", "rounds", "words"),
    [
        ((0,) * 4, (0,) * 2, 7, (0x5F6FB709, 0x0D893F64, 0x4F121F81, 0x4F730A48)),
        ((ONES,) * 4, (ONES,) * 2, 7, (0x5207DDC2, 0x45165E59, 0x4D8EE751, 0x8C52F662)),
        (*PI, 7, (0x4DFCCABA, 0x190A87F0, 0xC47362BA, 0xB6B5242A)),
        ((0,) * 4, (0,) * 2, 10, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((ONES,) * 4, (ONES,) * 2, 10, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (*PI, 10, (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
    ],
)
def test_philox_gives_the_known_answers(counter, key, rounds, words):
    """Random123's test vectors for philox4x32."""
    found = dropout.philox(tuple(map(torch.tensor, counter)), tuple(map(torch.tensor, key)), rounds)
    assert tuple(x.item() for x in found) == words


def drawn(rows=256, heads=4, keys=256, rate=0.3, seed=SEED):
    """(heads, rows, keys): what is kept less its expectation, of variance 1."""
    kept = dropout.keep_scale(seed, rate, torch.arange(rows)[None], heads, keys)[0] > 0
    return (kept.double() - (1 - rate)) / (rate * (1 - rate)) ** 0.5


def standard(x):
    """The sum of independent numbers of variance 1, which is to be a standard normal number; six are seldom passed."""
    return abs(float(x.sum() / x.numel() ** 0.5))


@pytest.mark.parametrize("rate", [1e-3, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("axis", [None, 0, 1, 2])
def test_as_many_are_kept_as_the_rate_says(rate, axis):
    """In all, and in each head, row and column: the mean of their squares is 1."""
    found = drawn(rate=rate)
    assert standard(found) < 5
    if axis is not None:
        sums = found.movedim(axis, 0).flatten(1).sum(1) / (found.numel() / found.shape[axis]) ** 0.5
        assert abs(float(sums.square().mean()) - 1) < 6 * (2 / len(sums)) ** 0.5 and float(sums.abs().max()) < 6


@pytest.mark.parametrize("lag", [1, 2, 3, 7, 8, 9, 15, 16, 17, 32, 64])
@pytest.mark.parametrize("axis", [1, 2])
def test_neighbours_are_independent(axis, lag):
    """Along rows and keys, those of one quad too."""
    found = drawn()
    before, after = found.narrow(axis, 0, 256 - lag), found.narrow(axis, lag, 256 - lag)
    assert standard(before * after) < 5


@pytest.mark.parametrize("other", [SEED + 1, SEED + 2**32, -SEED])
def test_heads_and_seeds_are_independent(other):
    found = drawn()
    assert standard(found * drawn(seed=other)) < 5
    for lag in (1, 2, 3):
        assert standard(found[lag:] * found[:-lag]) < 5


def test_all_pairs_of_keys_are_independent():
    """The correlations of 64 keys over 8192 rows are as large as those of independent numbers: chi square."""
    found = drawn(8192, 1, 64)[0]
    correlation = (found.T @ found / len(found))[tuple(torch.triu_indices(64, 64, 1))]
    pairs = len(correlation)
    assert abs(float(correlation.square().sum() * len(found)) - pairs) < 6 * (2 * pairs) ** 0.5


def test_the_patterns_of_a_quad_are_as_frequent_as_their_rate_says():
    kept = drawn(4096, 2, 64, rate=0.5) > 0
    quads = kept.unflatten(-1, (4, 2, 4, 2)).transpose(-3, -2).flatten(-2)  # block, quad, key
    count = (quads * torch.tensor([1, 2, 4, 8])).sum(-1).flatten().bincount(minlength=16)
    expected = count.sum() / 16
    assert float(((count - expected) ** 2 / expected).sum()) < 15 + 6 * 30**0.5


@pytest.mark.parametrize("keys", [1, 15, 16, 40])
def test_the_mask_of_a_key_does_not_depend_on_how_many_there_are(keys):
    assert torch.equal(drawn(8, 2, keys), drawn(8, 2, 64)[..., :keys])


@pytest.mark.parametrize("op", ["region", "varlen"])
def test_gradcheck_with_dropout(op, backend):
    """The backward drops what the forward dropped."""
    assert torch.autograd.gradcheck(
        lambda *x: small_attention(op, *x, dropout=0.4, seed=SEED), small_qkv(), fast_mode=True
    )


@pytest.mark.parametrize("op", ["region", "varlen"])
def test_no_dropout_is_exactly_no_dropout(op, backend):
    tensors = small_qkv()
    plain = small_attention(op, *tensors)
    torch.testing.assert_close(small_attention(op, *tensors, dropout=0.0, seed=SEED), plain, rtol=0, atol=0)
    assert not torch.equal(small_attention(op, *tensors, dropout=0.2, seed=SEED), plain)


@pytest.mark.parametrize("op", ["region", "varlen"])
def test_dropout_is_a_function_of_the_seed(op, backend):
    tensors = small_qkv()
    first, again, other = (
        small_attention(op, *tensors, dropout=0.5, seed=seed) for seed in (SEED, SEED.clone(), SEED + 2**32)
    )
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("op", ["region", "varlen"])
def test_dropout_keeps_the_expectation(op, backend):
    q, k, v = (x.detach() for x in small_qkv())
    drawn = torch.stack([small_attention(op, q, k, v, dropout=0.3, seed=SEED + i) for i in range(600)])
    standard_error = drawn.std(0) / len(drawn) ** 0.5
    off = (drawn.mean(0) - small_attention(op, q, k, v)) / standard_error.clamp(min=1e-9)
    assert off.square().mean() < 1.3  # the mean square of standard normal numbers is 1


def test_dropout_of_one_key_is_all_or_nothing(backend):
    """One key a query: the probability is 1, so that the mask itself is what comes out."""
    rows = torch.arange(4001).int()
    one = torch.ones(4000, 3, 1)
    out = varlen_attention(one, one, one, rows, rows, dropout=0.25, seed=SEED)
    kept = dropout.keep_scale(SEED, 0.25, torch.arange(4000)[None], 3, 1)[0, ..., 0].T
    torch.testing.assert_close(out[..., 0], kept.float())
    assert abs(float((out > 0).float().mean()) - 0.75) < 0.02


@pytest.mark.parametrize("op", ["region", "varlen"])
def test_checkpointing_replays_the_mask(op, backend):
    tensors = small_qkv()

    def run(wrap):
        torch.manual_seed(5)
        out = wrap(lambda *x: small_attention(op, *x, dropout=0.5))
        return out, *torch.autograd.grad(out.square().sum(), tensors)

    plain = run(lambda f: f(*tensors))
    replayed = run(lambda f: torch.utils.checkpoint.checkpoint(f, *tensors, use_reentrant=False))
    torch.testing.assert_close(replayed, plain, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dropout": 1.0}, r"\[0, 1\)"),
        ({"dropout": -0.1}, r"\[0, 1\)"),
        ({"dropout": 0.1, "seed": SEED.int()}, r"expected \(1,\) int64"),
        ({"dropout": 0.1, "seed": SEED[0]}, r"expected \(1,\) int64"),
    ],
)
def test_bad_dropout_or_seed_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        small_attention("region", *small_qkv(), **options)


@pytest.mark.parametrize("op", ["region", "varlen"])
def test_compiles_with_dropout(op, backend):
    tensors = small_qkv()
    compiled = torch.compile(
        lambda *x: small_attention(op, *x, dropout=0.3, seed=SEED), backend="aot_eager", fullgraph=True
    )
    plain = small_attention(op, *tensors, dropout=0.3, seed=SEED)
    torch.testing.assert_close(compiled(*tensors), plain)
    found, wanted = (torch.autograd.grad(out.square().sum(), tensors) for out in (compiled(*tensors), plain))
    torch.testing.assert_close(found, wanted)


def test_compiled_dropout_draws_anew_at_each_call(backend):
    compiled = torch.compile(lambda *x: small_attention("region", *x, dropout=0.5), backend="aot_eager", fullgraph=True)
    q, k, v = (x.detach() for x in small_qkv())
    assert not torch.equal(compiled(q, k, v), compiled(q, k, v))
