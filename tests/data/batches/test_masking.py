"""The official codes' masking beside ours: how many, which, and by what they are replaced."""

from itertools import pairwise
from random import Random

import pytest

from relvlm.config.schema import DataConfig
from relvlm.data.batches.masking import mask, mask_skipgrams, mask_tokens, mask_words
from relvlm.data.text import Tokenizer

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(40)), "##s", "##t"]
XVLM = DataConfig(masking="xvlm", mlm_probability=0.25, max_masks=4)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocab") / "vocab.txt"
    path.write_text("\n".join(WORDS))
    return Tokenizer(path)


def many(function, count: int = 400):
    return [function(Random(seed)) for seed in range(count)]


def test_whole_words_are_masked(tokenizer):
    ids = [2, 5, 45, 6, 46, 7, 45, 3]  # three words of two pieces each
    for masked, positions, labels in many(lambda rng: mask_words(ids, rng, 0.4, tokenizer), 50):
        assert positions in ([1, 2], [3, 4], [5, 6])
        assert labels == [ids[place] for place in positions]
        assert all(masked[i] == ids[i] for i in range(8) if i not in positions)


@pytest.mark.parametrize(("probability", "words"), [(0.2, 1), (0.49, 1), (0.6, 2), (1.0, 3)])
def test_words_are_masked_while_they_fit_into_the_share(probability, words, tokenizer):
    ids = [2, 5, 45, 6, 46, 7, 45, 3]
    for _, positions, _ in many(lambda rng: mask_words(ids, rng, probability, tokenizer), 20):
        assert len(positions) == 2 * words


def test_at_least_one_word_is_masked_and_no_special_token(tokenizer):
    assert mask_words([2, 5, 3], Random(0), 0.0, tokenizer)[1] == [1]
    assert mask_words([2, 1, 3], Random(0), 1.0, tokenizer) == ([2, 1, 3], [], [])


def test_whole_words_keep_within_max_masks(tokenizer):
    ids = [2, *range(5, 25), 3]
    assert len(mask_words(ids, Random(0), 0.5, tokenizer, max_masks=3)[1]) == 3


@pytest.mark.parametrize(
    ("function", "others"), [(mask_words, range(5, 47)), (mask_tokens, range(47))], ids=["words", "albef"]
)
def test_of_masked_tokens_80_percent_are_mask_10_another_10_as_they_were(function, others, tokenizer):
    ids = [2, *range(5, 45), 3]
    found = [
        (masked[place], ids[place])
        for masked, places, _ in many(lambda rng: function(ids, rng, 0.25, tokenizer))
        for place in places
    ]
    mask_share = sum(now == tokenizer.mask_id for now, _ in found) / len(found)
    kept_share = sum(now == was for now, was in found) / len(found)
    assert mask_share == pytest.approx(0.8, abs=0.02) and kept_share == pytest.approx(0.1, abs=0.02)
    assert {now for now, was in found if now not in (was, tokenizer.mask_id)} == {*others} - {tokenizer.mask_id}


def test_albef_masks_each_token_by_itself_and_never_cls(tokenizer):
    ids = [2, *range(5, 45), 3]
    found = many(lambda rng: mask_tokens(ids, rng, 0.15, tokenizer))
    assert sum(len(places) for _, places, _ in found) / (400 * 40) == pytest.approx(0.15, abs=0.01)
    assert all(0 not in places and 41 not in places for _, places, _ in found)
    assert any(not places for _, places, _ in many(lambda rng: mask_tokens(ids[:3], rng, 0.15, tokenizer)))


@pytest.mark.parametrize(("tokens", "wanted"), [(2, 1), (5, 1), (7, 2), (11, 3), (13, 3), (25, 4), (40, 4)])
def test_xvlm_masks_a_quarter_of_all_tokens_but_one_at_least_and_max_masks_at_most(tokens, wanted, tokenizer):
    ids = [2, *range(5, 5 + tokens - 1)]
    for masked, places, labels in many(lambda rng: mask_skipgrams(ids, rng, XVLM, tokenizer), 50):
        assert len(places) == wanted and places == sorted(places) and 0 not in places
        assert labels == [ids[place] for place in places]
        assert all(a == b for i, (a, b) in enumerate(zip(masked, ids, strict=True)) if i not in places)


def test_xvlm_masks_whole_words_where_there_is_room(tokenizer):
    ids = [2, 5, 45, 46, 6, 7, 8, 9, 10, 11, 12, 13]  # w0 ##s ##t w1 ...: 3 of 12
    config = DataConfig(masking="xvlm", max_masks=8, skipgram_probability=0.0)
    found = [places for _, places, _ in many(lambda rng: mask_skipgrams(ids, rng, config, tokenizer))]
    assert any(places == [1, 2, 3] for places in found) and all(len(places) == 3 for places in found)


def test_skipgrams_mask_neighbours_more_often(tokenizer):
    ids = [2, *range(5, 45)]

    def neighbours(probability: float) -> int:
        config = DataConfig(masking="xvlm", max_masks=8, skipgram_probability=probability)
        found = many(lambda rng: mask_skipgrams(ids, rng, config, tokenizer))
        return sum(a + 1 == b for _, places, _ in found for a, b in pairwise(places))

    assert neighbours(1.0) > 2 * neighbours(0.0)


@pytest.mark.parametrize("masking", ["albef", "xvlm"])
def test_eight_in_ten_become_mask_and_one_stays(masking, tokenizer):
    ids = [2, *range(5, 45)]
    config = DataConfig(masking=masking, mlm_probability=0.25)
    found = many(lambda rng: mask(ids, rng, config, tokenizer))
    places = [(masked[p], ids[p]) for masked, positions, _ in found for p in positions]
    assert sum(new == tokenizer.mask_id for new, _ in places) / len(places) == pytest.approx(0.8, abs=0.02)
    assert sum(new == old for new, old in places) / len(places) == pytest.approx(0.1, abs=0.02)


def test_the_default_takes_whole_words(tokenizer):
    ids = [2, 5, 45, 46, 3]
    for _, places, _ in many(lambda rng: mask(ids, rng, DataConfig(), tokenizer), 20):
        assert places == [1, 2, 3]
