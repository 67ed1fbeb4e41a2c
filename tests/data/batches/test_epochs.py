"""An epoch of a kind holds each record that it can use exactly once, whoever reads it and however often killed."""

from collections import Counter
from dataclasses import replace

import pytest
from support.scenes import COUNT, load, loader_of, only, scene, write

from relvlm.config.schema import KindCounts, NegativePools
from relvlm.data.shards.schema import Entity, Relation
from relvlm.data.text import text_key

EVERY = 4  # images of a step
KINDS = {"captions": [1, 2, 5, 21], "entities": [3], "mrc": [2, 4, 6, 8, 10, 11, 20], "vsg": [2, 8, 11]}


def mixed(number):
    """A scene that lacks what some kinds need (KINDS), or has it beside what has no words."""
    key, image, sample = scene(number)
    changes = {}
    if number in KINDS["captions"]:
        changes["captions"] = ("...",) if number == 5 else ()
    elif number % 3 == 0:
        changes["captions"] = ("?!", *sample.captions)
    if number in KINDS["entities"]:
        labels = ("!", "...")
        changes["entities"] = tuple(replace(e, label=label) for e, label in zip(sample.entities, labels, strict=True))
    elif number % 2:
        changes["entities"] = (Entity("x", "-", (0, 0, 9, 9)), *sample.entities)
    if number in KINDS["vsg"]:
        changes["relations"] = ()
    elif number in KINDS["mrc"]:
        changes["relations"] = (Relation("c", "near", "b"),)
    return key, image, replace(sample, **changes)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write(tmp_path_factory.mktemp("epochs"), "mixed", map(mixed, range(COUNT)))


def expected(kind):
    unusable = {*KINDS[kind], *(KINDS["entities"] if kind in ("mrc", "vsg") else [])}
    return sorted(set(range(COUNT)) - unusable)


def config_of(config, dataset, kind):
    pools = NegativePools(captions=1, entities=1, vsg=1)
    sets = {"captions": [dataset], "entities": [dataset], "graphs": [dataset]}
    counts = KindCounts(captions=EVERY, entities=2 * EVERY, mrc=EVERY, vsg=EVERY)
    return replace(only(config, kind), **sets, batch=counts, negative_pool=pools, crop_scale=0.5, flip=0.5)


def numbers(batches):
    names = {text_key(f"scenes/{number}"): number for number in range(COUNT)}
    return [names[key] for batch in batches for key in batch.image_key.tolist()]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_each_usable_record_comes_once_an_epoch_through_two_kills(config, dataset, kind, ranks, workers):
    """Killed after steps 3 and 4, in the middle of what the workers have read ahead."""
    config, usable = config_of(config, dataset, kind), expected(kind)
    config = replace(config, workers=workers)
    steps = -(-2 * len(usable) // EVERY)
    seen = []
    for start, stop in ((0, 3), (3, 4), (4, steps)):
        loaders = [loader_of(config, rank=rank, world_size=ranks, start_step=start) for rank in range(ranks)]
        for _ in range(start, stop):
            seen += numbers(chunk for loader in loaders for chunk in next(loader))
    for epoch in range(2):
        assert sorted(seen[epoch * len(usable) : (epoch + 1) * len(usable)]) == usable
    assert seen[: len(usable)] != seen[len(usable) : 2 * len(usable)]


def test_a_faulty_record_costs_its_own_place_alone(config, tmp_path):
    def torn(number):
        key, image, sample = scene(number)
        return key, image[:-40] if number == 9 else image, sample

    config = config_of(config, write(tmp_path, "torn", map(torn, range(COUNT))), "captions")
    seen = Counter(numbers(load(config, COUNT // EVERY)))
    assert sum(seen.values()) == COUNT and set(seen) == set(range(COUNT)) - {9}
    assert sorted(seen.values())[-2:] == [1, 2]


def test_an_epoch_says_how_much_of_a_set_it_is(config, dataset, caplog):
    with caplog.at_level("INFO"):
        load(config_of(config, dataset, "mrc"), 1)
    assert "data.graphs[0].path: 16 of 24 records have relation of data.relations: an epoch of mrc" in caplog.text


def test_a_resumed_epoch_begins_where_it_was_without_a_look_at_what_was_read(config, dataset, monkeypatch):
    """Of the shards, only those that its own steps read are opened."""
    loader = loader_of(config_of(config, dataset, "captions"), start_step=4)
    (usable,) = loader._dataset.sets
    opened, real = [], usable.shards._file
    monkeypatch.setattr(usable.shards, "_file", lambda shard: opened.append(shard) or real(shard))
    next(loader)
    assert len(opened) == EVERY
