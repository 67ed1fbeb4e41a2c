from dataclasses import replace
from random import Random

import pytest

from relvlm.config.schema import RelationWeights
from relvlm.data.batches.vsg import choose_triplets, encode_triplets, verbalise
from relvlm.data.shards.schema import Entity, Relation, Sample
from relvlm.data.text import Tokenizer

VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "cube", "ball", "ring", "on", "under"]
CUBE = Entity("c", "cube", (60, 0, 80, 20), ("red",))
BALL = Entity("b", "ball", (0, 50, 20, 70))
RING = Entity("r", "ring", (0, 0, 20, 20))
RELATIONS = (Relation("c", "on", "b"), Relation("b", "under", "r"), Relation("r", "on", "c"))
SAMPLE = Sample("1", 100, 80, entities=(CUBE, BALL, RING), relations=RELATIONS)


@pytest.fixture
def tokenizer(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(VOCAB))
    return Tokenizer(tmp_path / "vocab.txt")


def words(ids):
    return " ".join(VOCAB[i] for i in ids)


def test_triplets_are_sorted_left_to_right_then_top_to_bottom():
    for seed in range(10):
        triplets = choose_triplets(SAMPLE, 8, Random(seed))
        assert [t.subject for t in triplets] == ["r", "b", "c"]


def test_triplets_out_of_order_are_the_same_ones():
    drawn = [choose_triplets(SAMPLE, 8, Random(seed), in_order=False) for seed in range(60)]
    assert len({tuple(t.subject for t in triplets) for triplets in drawn}) == 6
    assert all({t.subject for t in triplets} == {"r", "b", "c"} for triplets in drawn)


def test_no_more_than_the_limit():
    drawn = {tuple(t.subject for t in choose_triplets(SAMPLE, 2, Random(seed))) for seed in range(30)}
    assert drawn == {("r", "b"), ("r", "c"), ("b", "c")}


def test_what_weighs_little_is_seldom_in_a_text():
    marked = (replace(RELATIONS[0], provenance="boxes"), *RELATIONS[1:])
    weights, sample = RelationWeights(boxes=1e-6), replace(SAMPLE, relations=marked)
    assert [t.subject for t in choose_triplets(sample, 2, Random(0), weights)] == ["r", "b"]
    assert len(choose_triplets(sample, 3, Random(0), weights)) == 3


def test_verbalised_triplets_name_attribute_and_label():
    triplets = choose_triplets(SAMPLE, 8, Random(0))
    assert verbalise(SAMPLE, triplets, Random(0)) == [
        "ring on red cube",
        "ball under ring",
        "red cube on ball",
    ]


def test_every_triplet_ends_in_sep(tokenizer):
    ids, kept, dropped = encode_triplets(["ring on red cube", "ball under ring"], tokenizer, 112)
    assert words(ids) == "[CLS] ring on red cube [SEP] ball under ring [SEP]"
    assert kept == ["ring on red cube", "ball under ring"]
    assert dropped == 0


def test_a_triplet_that_does_not_fit_is_dropped_whole(tokenizer):
    ids, kept, dropped = encode_triplets(["ball under ring", "ring on red cube", "ring on cube"], tokenizer, 9)
    assert words(ids) == "[CLS] ball under ring [SEP] ring on cube [SEP]"
    assert kept == ["ball under ring", "ring on cube"]
    assert dropped == 1


@pytest.mark.parametrize(("tokens", "kept"), [(5, ["ball under ring"]), (4, [])])
def test_a_triplet_may_fill_the_text_to_its_last_token(tokenizer, tokens, kept):
    assert encode_triplets(["ball under ring"], tokenizer, tokens)[1] == kept
