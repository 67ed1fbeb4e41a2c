"""Dropout of attention: a function of the seed and of places, the same forward and backward, kept on average."""

import pytest
import torch
from support.attention_cases import small_attention, small_qkv

from relvlm_kernels import dropout, varlen_attention

SEED = torch.tensor([2**40 + 7])


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), (0, 0), [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_philox_gives_the_known_answers(counter, key, words):
    """Of Random123's test vectors for philox4x32_10."""
    found = dropout.philox(tuple(map(torch.tensor, counter)), tuple(map(torch.tensor, key)))
    assert [x.item() for x in found] == words


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
