"""The records that a kind can use, by the manifest's counts where they say it, by the index where they do not."""

import pickle
from dataclasses import replace

import pytest
from support.shards import toy_photo, toy_sample

from relvlm.config.schema import JointWeights
from relvlm.data.batches.usable import UsableRecords, sections_of
from relvlm.data.shards.index import vocabulary_keys
from relvlm.data.shards.schema import Relation
from relvlm.data.shards.store import ShardSet, write_shards
from relvlm.errors import UserError

NEAR, NOTHING = vocabulary_keys(["near"]), vocabulary_keys([])


def without(number, *fields):
    return replace(toy_sample(number), **dict.fromkeys(fields, ()))


@pytest.fixture
def shards(tmp_path):
    """Of 3, 3 and 2 records: 1, 2, 7 have no relation, 4 one of another predicate, 2 and 5 no caption."""
    lacking = {1: ["relations"], 2: ["relations", "captions"], 5: ["captions"], 7: ["relations"]}
    samples = [without(number, *lacking.get(number, [])) for number in range(8)]
    samples[4] = replace(samples[4], relations=(Relation("b", "under", "a"),))
    toys = [(f"k{n}", toy_photo(n), sample) for n, sample in enumerate(samples)]
    write_shards(tmp_path / "set", toys, source="toy", builder_args={}, shard_size=3)
    return ShardSet(tmp_path / "set")


def indices(usable):
    return [usable.index(number) for number in range(len(usable))]


@pytest.fixture
def opened(shards, monkeypatch):
    """Numbers of the shards whose indexes are looked at."""
    found = []
    real = shards.index
    monkeypatch.setattr(shards, "index", lambda shard: found.append(shard) or real(shard))
    return found


@pytest.mark.parametrize(
    ("kinds", "vocabulary", "expected"),
    [
        (["captions"], NOTHING, [0, 1, 3, 4, 6, 7]),
        (["entities"], NOTHING, list(range(8))),
        (["vsg"], NOTHING, [0, 3, 4, 5, 6]),
        (["mrc"], NEAR, [0, 3, 5, 6]),
        (["mrc"], vocabulary_keys(["near", "under"]), [0, 3, 4, 5, 6]),
        (["captions", "vsg"], NEAR, [0, 3, 4, 6]),
        (["captions", "mrc"], NEAR, [0, 3, 6]),
        (["mrc"], vocabulary_keys(["on"]), []),
    ],
)
def test_each_kind_has_the_records_that_it_can_use(shards, kinds, vocabulary, expected):
    usable = UsableRecords(shards, kinds, vocabulary)
    assert indices(usable) == expected and len(usable) == len(expected)
    assert [usable.read(index).key for index in expected] == [f"k{n}" for n in expected]
    assert usable.sizes == tuple(sum(n // 3 == shard for n in expected) for shard in range(3))
    assert indices(pickle.loads(pickle.dumps(usable))) == expected


def test_counts_of_the_manifest_are_enough_for_one_need(shards, opened):
    UsableRecords(shards, ["vsg"], NOTHING)
    entities = UsableRecords(shards, ["entities"], NOTHING)
    indices(entities)
    assert opened == []
    UsableRecords(shards, ["captions", "vsg"], NOTHING)
    assert opened == [0]  # the others' records all have the one or the other
    UsableRecords(shards, ["mrc"], NEAR)
    assert opened == [0, 0, 1, 2]


def test_shards_without_a_relation_are_not_asked_for_their_predicates(tmp_path, monkeypatch):
    toys = [(f"k{n}", toy_photo(n), without(n, *(["relations"] if n < 2 else []))) for n in range(4)]
    write_shards(tmp_path / "set", toys, source="toy", builder_args={}, shard_size=2)
    shards, found = ShardSet(tmp_path / "set"), []
    real = shards.index
    monkeypatch.setattr(shards, "index", lambda shard: found.append(shard) or real(shard))
    assert indices(UsableRecords(shards, ["mrc"], NEAR)) == [2, 3] and found == [1]


def test_only_a_shard_of_which_a_part_is_used_is_looked_at(shards, opened):
    captions = UsableRecords(shards, ["captions"], NOTHING)
    assert captions.index(5) == 7 and opened == []
    assert captions.index(2) == 3 and captions.index(3) == 4 and opened == [1]


def test_a_block_is_used_whole_or_not_at_all(tmp_path):
    samples = [without(n, *(["captions"] if n in (1, 6) else [])) for n in range(8)]
    toys = [(f"k{n}", toy_photo(n), sample) for n, sample in enumerate(samples)]
    write_shards(tmp_path / "set", toys, source="toy", builder_args={}, shard_size=4)
    shards = ShardSet(tmp_path / "set")
    assert indices(UsableRecords(shards, ["captions"], NOTHING, block=2)) == [2, 3, 4, 5]
    assert indices(UsableRecords(shards, ["captions"], NOTHING, block=4)) == []
    assert indices(UsableRecords(shards, ["mrc"], NEAR, block=2)) == list(range(8))


def test_shards_of_which_a_part_is_used_hold_whole_blocks(shards):
    with pytest.raises(UserError, match=r"000000\.tar: 3 records, some of no use, are no whole number of blocks of 2"):
        UsableRecords(shards, ["captions"], NOTHING, block=2)
    assert len(UsableRecords(shards, ["entities"], NOTHING, block=2)) == 8


def test_it_says_what_is_needed(shards):
    assert UsableRecords(shards, ["captions", "vsg"], NEAR).needed == "caption and relation"
    assert UsableRecords(shards, ["mrc"], NEAR).needed == "relation of data.relations"


def test_a_joint_batch_has_the_kinds_with_a_weight():
    assert sections_of("joint", JointWeights(captions=0, entities=1, mrc=2, vsg=0)) == ["entities", "mrc"]
    assert sections_of("mrc", JointWeights(mrc=0)) == ["mrc"]
