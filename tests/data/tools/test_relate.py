import argparse
import subprocess
import sys
from dataclasses import replace

import pytest
from PIL import Image

from relvlm.data.shards.schema import Entity, Relation, Sample
from relvlm.data.shards.store import ShardSet, write_shards
from relvlm.data.sources import coco
from relvlm.data.tools.caption_triplets import CaptionParser
from relvlm.data.tools.relate import (
    MIRROR,
    Rules,
    add_arguments,
    choose,
    derive,
    main,
    predicates,
    relate_sample,
)
from relvlm.errors import UserError

ALL = Rules(predicates=tuple(MIRROR))
SIDES_AND_FAR = ("left of", "right of", "far from")


def sample(*entities, relations=()):
    boxed = tuple(Entity(str(n), label, box) for n, (label, box) in enumerate(entities))
    return Sample("7", 100, 100, "toy", (), boxed, relations)


def row(count):
    """`count` like boxes of different labels side by side."""
    return sample(*((f"thing{n}", (n * 10, 40, n * 10 + 8, 50)) for n in range(count)))


@pytest.mark.parametrize(
    ("subject", "target", "expected"),
    [
        ((0, 0, 20, 20), (30, 0, 50, 20), ["left of"]),
        ((30, 0, 50, 20), (0, 0, 20, 20), ["right of"]),
        ((0, 0, 20, 20), (19, 0, 39, 20), ["left of"]),  # one pixel shared: within the slack
        ((0, 0, 20, 20), (17, 0, 37, 20), []),  # three pixels shared: overlapping
        ((0, 0, 20, 20), (30, 10, 50, 30), ["left of"]),  # half their height shared
        ((0, 0, 20, 20), (30, 11, 50, 31), []),  # diagonal
        ((0, 0, 20, 20), (0, 30, 20, 50), ["above"]),
        ((0, 30, 20, 50), (0, 0, 20, 20), ["below"]),
        ((0, 0, 20, 20), (5, 5, 10, 10), []),  # one within the other
        ((0, 0, 10, 10), (85, 0, 95, 10), ["left of", "far from"]),
        ((0, 0, 10, 10), (85, 85, 95, 95), ["far from"]),
        ((0, 0, 60, 10), (140, 0, 200, 10), ["left of"]),  # apart, but not for things as long as these
    ],
)
def test_boxes_decide(subject, target, expected):
    assert predicates(subject, target, 100, 100, ALL) == expected


def test_turning_the_pair_round_gives_the_mirrored_predicates():
    boxes = [(x, y, x + w, y + w) for x in (0, 30, 75) for y in (0, 35, 80) for w in (5, 20)]
    for a in boxes:
        for b in boxes:
            if a != b:
                forward = predicates(a, b, 100, 100, ALL)
                assert [MIRROR[p] for p in forward] == predicates(b, a, 100, 100, ALL)


def test_photos_get_neither_above_nor_below_unless_asked():
    over = sample(("lamp", (0, 0, 20, 20)), ("table", (0, 50, 20, 70)))
    assert derive(over) == []
    assert derive(over, ALL) == [Relation("0", "above", "1")]


def test_equal_labels_and_tiny_boxes_are_left_out():
    pair = sample(("dog", (0, 0, 20, 20)), ("dog", (40, 0, 60, 20)), ("fly", (70, 5, 78, 12)), ("bee", (80, 5, 82, 7)))
    assert {(r.subject, r.object) for r in derive(pair)} == {("0", "2"), ("1", "2")}


def test_unique_takes_only_labels_that_occur_once():
    triple = sample(
        ("dog", (0, 0, 20, 20)), ("dog", (25, 0, 45, 20)), ("cat", (50, 0, 70, 20)), ("cow", (75, 0, 95, 20))
    )
    assert derive(triple, Rules(unique=True)) == [Relation("2", "left of", "3")]


def test_limit_keeps_mirrored_pairs_together_and_axes_in_balance():
    rules = Rules(limit=8, predicates=SIDES_AND_FAR)
    relations = choose(derive(row(10), rules), "7", rules)
    assert len(relations) == 8
    for r in relations:
        assert Relation(r.object, MIRROR[r.predicate], r.subject) in relations
    assert sum(r.predicate == "far from" for r in relations) == 4


def test_one_direction_is_chosen_by_chance():
    rules = Rules(mirrored="one", limit=1000, predicates=("left of", "right of"))
    names = [r.predicate for r in choose(derive(row(10), rules), "7", rules)]
    assert len(names) == 45
    assert 10 < names.count("left of") < 35


def test_the_choice_depends_on_seed_and_image_alone():
    found = derive(row(10))
    assert choose(found, "7") == choose(found, "7")
    assert choose(found, "7") != choose(found, "8")
    assert choose(found, "7") != choose(found, "7", Rules(seed=1))


def test_which_pairs_are_chosen_varies_between_images():
    rules = Rules(limit=4, predicates=("left of", "right of"))
    pairs = {frozenset((r.subject, r.object)) for i in range(20) for r in choose(derive(row(10), rules), str(i), rules)}
    assert len(pairs) > 10


def test_relations_already_there_stay_and_are_not_repeated():
    given = (Relation("1", "right of", "0"), Relation("0", "chasing", "1"))
    related = relate_sample(sample(("a", (0, 0, 20, 20)), ("b", (30, 0, 50, 20)), relations=given))
    assert related.relations == (*given, Relation("0", "left of", "1"))
    assert [r.provenance for r in related.relations] == ["", "", "boxes"]


def test_relations_by_machine_may_take_the_place_of_those_that_are_there(tmp_path):
    given = (Relation("1", "right of", "0"), Relation("0", "chasing", "1"))
    there = sample(("a", (0, 0, 20, 20)), ("b", (30, 0, 50, 20)), relations=given)
    related = relate_sample(there, Rules(mirrored="one"), keep=False)
    assert len(related.relations) == 1 and related.relations[0].provenance == "boxes"
    image = toy_set(tmp_path / "unused", tmp_path)
    write_shards(tmp_path / "in", [("0", image, there)], source="toy", builder_args={})
    assert run(tmp_path / "in", tmp_path / "out", "--replace") == 0
    shards = ShardSet(tmp_path / "out")
    assert {r.provenance for r in shards.read(0).sample.relations} == {"boxes"}
    assert shards.manifest["builder"]["arguments"]["replace"] is True


def test_what_a_caption_says_comes_before_what_boxes_say_and_keeps_its_provenance():
    pair = sample(("dog", (0, 0, 20, 20)), ("cat", (30, 0, 50, 20)))
    said = replace(pair, captions=("a dog left of a cat", "a cat chasing a dog"))
    related = relate_sample(said, Rules(mirrored="one"), CaptionParser(["left of", "chasing"]))
    assert [(r.predicate, r.provenance) for r in related.relations[:2]] == [
        ("left of", "parser"),
        ("chasing", "parser"),
    ]


def test_captions_are_read_with_the_predicates_of_a_file(tmp_path):
    image = toy_set(tmp_path / "unused", tmp_path)
    pair = replace(sample(("dog", (0, 0, 20, 20)), ("cat", (5, 5, 50, 20))), captions=("a dog chasing a cat",))
    write_shards(tmp_path / "in", [("k", image, pair)], source="toy", builder_args={})
    (tmp_path / "predicates.txt").write_text("chasing\n")
    assert run(tmp_path / "in", tmp_path / "out", "--captions", tmp_path / "predicates.txt") == 0
    shards = ShardSet(tmp_path / "out")
    (relation,) = shards.read(0).sample.relations
    assert (relation.predicate, relation.provenance) == ("chasing", "parser")
    assert shards.manifest["builder"]["arguments"]["caption predicates"] == ["chasing"]
    assert '"provenance":"parser"' in (tmp_path / "out/000000.tar").read_bytes().decode("latin-1")


def test_processes_and_a_kill_change_nothing(tmp_path):
    toy_set(tmp_path / "in", tmp_path)
    run(tmp_path / "in", tmp_path / "one", "--shard-size", 2)
    code = (
        "import os, signal, sys\nfrom relvlm.data.sources import shard_task\nfrom relvlm.cli import main\n"
        "write = shard_task.write_whole\n"
        "def once(path, text):\n    write(path, text)\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        "shard_task.write_whole = once\nmain()\n"
    )
    command = ["data", "relate", str(tmp_path / "in"), str(tmp_path / "two"), "--shard-size", "2"]
    killed = subprocess.run([sys.executable, "-c", code, *command], capture_output=True)
    assert killed.returncode == -9 and (tmp_path / ".two.building").is_dir()
    run(tmp_path / "in", tmp_path / "two", "--shard-size", 2, "--processes", 2)
    assert ShardSet(tmp_path / "two").manifest["shards"] == ShardSet(tmp_path / "one").manifest["shards"]
    assert not list(tmp_path.glob(".*"))


def run(*flags):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return main(parser.parse_args([str(flag) for flag in flags]))


def toy_set(folder, tmp_path):
    Image.new("RGB", (100, 100)).save(tmp_path / "black.png")
    image = (tmp_path / "black.png").read_bytes()
    write_shards(folder, [(str(n), image, row(n)) for n in range(2, 6)], source="toy", builder_args={})
    return image


def test_relate_copies_photos_and_writes_the_vocabulary(tmp_path, capsys):
    image = toy_set(tmp_path / "in", tmp_path)
    assert run(tmp_path / "in", tmp_path / "out", "--limit", 4, "--predicates", "left of", "right of") == 0
    shards = ShardSet(tmp_path / "out")
    assert [shards.read(i).image for i in range(4)] == [image] * 4
    assert [len(shards.read(i).sample.relations) for i in range(4)] == [2, 4, 4, 4]
    assert (tmp_path / "out" / "relations.txt").read_text() == "left of\nright of\n"
    assert shards.manifest["source"] == "toy" and shards.manifest["builder"]["arguments"]["relate"]["limit"] == 4
    assert "4 samples, 0 captions, 14 entities, 14 relations" in capsys.readouterr().out
    provenances = {r.provenance for i in range(4) for r in shards.read(i).sample.relations}
    assert provenances == {"boxes"}


def test_relate_lists_damaged_samples(tmp_path, capsys):
    toy_set(tmp_path / "in", tmp_path)
    shard = tmp_path / "in" / "000000.tar"
    shard.write_bytes(shard.read_bytes().replace(b'{"image_id"', b'["image_id"', 1))
    assert run(tmp_path / "in", tmp_path / "out") == 0
    assert len(ShardSet(tmp_path / "out")) == 3
    assert "000000.tar: 2: damaged: invalid" in (tmp_path / "out" / "build.log").read_text()
    assert "1 of 4 image records left out, faulty: damaged" in capsys.readouterr().err


def test_too_many_damaged_samples_end_it_and_leave_nothing(tmp_path):
    toy_set(tmp_path / "in", tmp_path)
    shard = tmp_path / "in" / "000000.tar"
    shard.write_bytes(shard.read_bytes().replace(b'{"image_id"', b'["image_id"', 1))
    with pytest.raises(UserError, match="1 of 4 image records cannot be used, --max-faults is 0"):
        run(tmp_path / "in", tmp_path / "out", "--max-faults", 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["black.png", "in"]


def test_relate_lists_a_key_that_is_in_two_shards(tmp_path):
    image = toy_set(tmp_path / "whole", tmp_path)
    write_shards(tmp_path / "in", [("k", image, row(n)) for n in (2, 3)], source="toy", builder_args={}, shard_size=1)
    run(tmp_path / "in", tmp_path / "out")
    assert len(ShardSet(tmp_path / "out")) == 1
    assert "000001.tar: k: repeated: same key as a record before: k\n" in (tmp_path / "out/build.log").read_text()


def test_relate_refuses_a_folder_without_manifest(tmp_path):
    with pytest.raises(UserError, match=r"no manifest.json"):
        run(tmp_path, tmp_path / "out")


def test_real_photos_get_relations_both_ways(shared, tmp_path):
    folder = shared / "data" / "coco_cc"
    files = (folder / "annotations" / f"{name}.json" for name in ("captions", "instances"))
    coco.build(*files, folder / "images", tmp_path / "in")
    assert run(tmp_path / "in", tmp_path / "out") == 0
    shards = ShardSet(tmp_path / "out")
    names = [r.predicate for i in range(len(shards)) for r in shards.read(i).sample.relations]
    assert names.count("left of") == names.count("right of") > 100
    assert set(names) == {"left of", "right of"}


def test_the_rules_where_nothing_else_is_said():
    rules = Rules()
    assert (rules.limit, rules.mirrored, rules.unique, rules.seed) == (16, "both", False, 0)
    assert (rules.min_area, rules.slack, rules.aligned, rules.far) == (0.004, 0.05, 0.5, 1.5)


@pytest.mark.parametrize(("side", "place", "far"), [(10, 60, True), (10, 59, False), (40, 100, True), (40, 99, False)])
def test_far_is_half_the_diagonal_and_one_and_a_half_times_the_longest_side(side, place, far):
    boxes = (0, 0, side, side), (place, 0, place + side, side)
    assert ("far from" in predicates(*boxes, 80, 60, ALL)) == far  # a diagonal of 100
