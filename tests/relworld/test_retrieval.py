"""Paragraphs and the Karpathy file."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from support.worlds import PAIRS, fingerprint

from relvlm.relworld.bank import Bank
from relvlm.relworld.config import WorldConfig, world_config
from relvlm.relworld.lexicon import ACTIONS
from relvlm.relworld.retrieval import write_paragraphs


def test_paragraphs_have_splits_and_tell_their_images_apart(folder: Path) -> None:
    rows = json.loads((folder / "paragraphs" / "paragraphs_v1.json").read_text())
    splits = {s: json.loads((folder / "paragraphs" / f"{s}_split.json").read_text()) for s in ("val", "test")}
    assert len(splits["test"]) == PAIRS
    assert len(splits["val"]) == PAIRS // 10
    assert {row["image_id"] for row in rows} == {*splits["val"], *splits["test"]}
    test = [row for row in rows if row["image_id"] in set(splits["test"])]
    contents = [frozenset(re.findall(r"The [^.]* the [^.]*\.", row["paragraph"])) for row in test]
    assert all(contents)
    assert len(set(contents)) == len(contents)


@pytest.mark.parametrize("siblings", [1, 2, 4])
def test_siblings_share_their_things_and_are_told_apart_by_relations(siblings: int, tmp_path: Path) -> None:
    bank = Bank(world_config("mini", shapes=10, colours=8, benchmark_pairs=40, paragraph_siblings=siblings), 0)
    write_paragraphs(bank, tmp_path / "p")
    rows = json.loads((tmp_path / "p/paragraphs_v1.json").read_text())[4:]  # 4 of val
    things = [frozenset(thing.look.kind for thing in bank.scenes[row["image_id"]].things) for row in rows]
    assert [things.count(found) for found in things] == [siblings] * len(rows)
    assert len({row["paragraph"] for row in rows}) == len(rows)


def test_karpathy_file_has_five_sentences_an_image(folder: Path) -> None:
    content = json.loads((folder / "coco" / "karpathy.json").read_text())
    assert Counter(i["split"] for i in content["images"]) == {"val": PAIRS // 10, "test": PAIRS // 5}
    ids = [s["sentid"] for image in content["images"] for s in image["sentences"]]
    assert len(set(ids)) == len(ids) == 5 * len(content["images"])
    assert all(s["raw"] for image in content["images"] for s in image["sentences"])


def test_files_are_the_same_in_every_version(folder: Path, config: WorldConfig) -> None:
    files = [path.read_text() for name in ("paragraphs", "coco") for path in sorted((folder / name).iterdir())]
    assert fingerprint(files) == {5: "8b5126f06aba", 2: "961cc2ca566b", 3: "5b34c6b80ece"}[config.max_objects]


def test_ids_join_sentences_to_images(folder: Path) -> None:
    images = json.loads((folder / "coco" / "karpathy.json").read_text())["images"]
    for number, image in enumerate(images):
        assert image["imgid"] == number
        assert image["sentids"] == [s["sentid"] for s in image["sentences"]] == list(range(5 * number, 5 * number + 5))
        assert {s["imgid"] for s in image["sentences"]} == {number}
        for sentence in image["sentences"]:
            assert sentence["tokens"] == re.findall(r"[a-z0-9]+", sentence["raw"].lower())


@pytest.mark.parametrize(("pairs", "val", "test"), [(40, 4, 40), (250, 25, 200), (900, 90, 225)])
def test_a_quarter_of_the_pairs_but_two_hundred_paragraphs_where_there_are(
    pairs: int, val: int, test: int, tmp_path: Path
) -> None:
    config = world_config("full", benchmark_pairs=pairs, max_objects=3)
    bank = Bank(config, 0)
    write_paragraphs(bank, tmp_path / "p")
    sizes = [len(json.loads((tmp_path / "p" / f"{split}_split.json").read_text())) for split in ("val", "test")]
    assert sizes == [val, test] and len(bank.scenes) == val + test


def test_a_paragraph_has_five_facts_at_most_actions_first(folder: Path) -> None:
    counts = Counter[int]()
    for row in json.loads((folder / "paragraphs" / "paragraphs_v1.json").read_text()):
        stated = re.findall(r"The [a-z]+ [a-z]+ (?:is )?([a-z ]+?) the ", row["paragraph"])
        counts[len(stated)] += 1
        actions = [predicate in ACTIONS for predicate in stated]
        assert actions == sorted(actions, reverse=True)
    assert min(counts) >= 1 and max(counts) <= 5
