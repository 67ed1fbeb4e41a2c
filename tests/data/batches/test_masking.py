"""The official codes' masking beside ours: how many, which, and by what they are replaced."""

from itertools import pairwise
from random import Random

import pytest

from relvlm.config.schema import DataConfig
from relvlm.data.batches.masking import mask, mask_skipgrams, mask_tokens
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
