"""RelWorld's evaluation files: official formats, balanced, true where they say so, and covered by the vocabulary."""

import csv
import json
import re
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from relvlm.data.shards.store import ShardSet
from relvlm.relworld.bank import Bank
from relvlm.relworld.build import build, write_benchmarks
from relvlm.relworld.config import PRESETS, WorldConfig, world_config
from relvlm.relworld.corpus import training_set
from relvlm.relworld.foil_files import SUGARCREPE, VALSE, scene_pool
from relvlm.relworld.language import SPECIAL_TOKENS, vocabulary
from relvlm.relworld.pairs import SVO_COLUMNS, svo_rows, vsr_rows
from relvlm.relworld.scene import Scene, facts, truth

Row = dict[str, Any]
PAIRS = 200
FEWEST = 10  # rows of a piece: few scenes of the miniature show an action


@pytest.fixture(scope="module", params=sorted(PRESETS))
def config(request: pytest.FixtureRequest) -> WorldConfig:
    return world_config(request.param, benchmark_pairs=PAIRS)


@pytest.fixture(scope="module")
def folder(config: WorldConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("world") / "benchmarks"
    write_benchmarks(out, config, seed=0)
    return out


def vsr(folder: Path, split: str) -> list[Row]:
    return [json.loads(line) for line in (folder / "vsr" / f"{split}.jsonl").read_text().splitlines()]


def svo(folder: Path) -> list[Row]:
    with (folder / "svo" / "svo_probes.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def objects(folder: Path, kind: str) -> dict[str, dict[str, Row]]:
    return {file.stem: json.loads(file.read_text()) for file in sorted((folder / kind).glob("*.json"))}


def triplet(config: WorldConfig, sentence: str) -> tuple[str, str, str]:
    text = sentence.lower().rstrip(".").replace(" is ", " ").removeprefix("the ")
    for predicate in sorted(config.predicates, key=len, reverse=True):
        if f" {predicate} the " in text:
            subject, _, obj = text.partition(f" {predicate} the ")
            return subject, predicate, obj
    raise AssertionError(f"no predicate in {sentence!r}")


def holds(config: WorldConfig, scene: Scene, sentence: str) -> bool | None:
    """What the scene says of a statement about two of its things; False where one of them is not there."""
    subject, predicate, obj = triplet(config, sentence)
    ends = []
    for words in (subject, obj):
        fits = [i for i, t in enumerate(scene.things) if set(words.split()) <= {t.look.colour, t.look.shape}]
        ends.append(fits)
    found = {truth(scene, i, predicate, j) for i in ends[0] for j in ends[1] if i != j}
    return True if True in found else None if None in found else False


def test_vsr_labels_are_true_and_neither_text_nor_image_gives_them_away(config: WorldConfig) -> None:
    bank = Bank(config, 0)
    rows = vsr_rows(bank, "test", 200)
    by_caption, by_image = defaultdict(list), defaultdict(list)
    for row in rows:
        scene = bank.scenes[int(row["image"].removesuffix(".jpg"))]
        assert holds(config, scene, row["caption"]) is bool(row["label"])
        by_caption[row["caption"]].append(row["label"])
        by_image[row["image"]].append(row["label"])
    assert all(2 * sum(labels) == len(labels) for labels in (*by_caption.values(), *by_image.values()))


def test_vsr_files_have_the_official_fields_and_both_kinds_of_combination(folder: Path) -> None:
    for split, count in (("dev", PAIRS // 2), ("test", PAIRS)):
        rows = vsr(folder, split)
        assert len(rows) == count
        assert {"image", "image_link", "caption", "label", "relation"} <= set(rows[0])
        assert all(f" {row['relation']} " in row["caption"] for row in rows)
        assert {row["held_out"] for row in rows} == {True, False}


def test_svo_sentences_hold_in_the_positive_image_only(config: WorldConfig) -> None:
    bank = Bank(config, 0)
    rows = svo_rows(bank, 120)
    for row in rows:
        assert holds(config, bank.scenes[row["pos_image_id"]], row["sentence"]) is True
        assert holds(config, bank.scenes[row["neg_image_id"]], row["sentence"]) is False
        assert row["subj_neg"] + row["verb_neg"] + row["obj_neg"] == 1
        changed = [a != b for a, b in zip(row["pos_triplet"].split(","), row["neg_triplet"].split(","), strict=True)]
        assert changed == [row["subj_neg"], row["verb_neg"], row["obj_neg"]]


def test_svo_images_are_right_as_often_as_wrong(folder: Path) -> None:
    rows = svo(folder)
    assert tuple(rows[0])[: len(SVO_COLUMNS)] == SVO_COLUMNS
    right, wrong = Counter(r["pos_image_id"] for r in rows), Counter(r["neg_image_id"] for r in rows)
    assert right == wrong
    assert {r["verb_neg"] for r in rows} == {"True", "False"}


@pytest.mark.parametrize("piece", ["relations", "action-replacement", "actant-swap"])
def test_valse_relation_foils_are_false_and_captions_true(config: WorldConfig, folder: Path, piece: str) -> None:
    bank = Bank(config, 0)
    vsr_rows(bank, "dev", PAIRS // 2), vsr_rows(bank, "test", PAIRS)
    svo_rows(bank, round(0.6 * PAIRS / 2) * 2)
    pool = dict(scene_pool(bank))
    records = objects(folder, "valse")[piece]
    assert len(records) >= FEWEST
    for record in records.values():
        scene = pool[int(record["image_file"].removesuffix(".jpg"))]
        assert holds(config, scene, record["caption"]) is True
        assert holds(config, scene, record["foil"]) is False


def counted(scene: Scene, sentence: str) -> bool:
    shape = next(s for s in (t for t in re.findall(r"[a-z]+", sentence.lower())) if s.rstrip("es") in _STEMS)
    count = sum(t.look.shape == _STEMS[shape.rstrip("es")] for t in scene.things)
    if match := re.search(r"exactly (\d)", sentence):
        return count == int(match[1])
    if "exactly one" in sentence.lower():
        return count == 1
    if "number of" in sentence:
        return count > 1
    return count == 0 if " no " in sentence else count > 0


_STEMS = {s.rstrip("es"): s for s in PRESETS["full"].shape_names}


@pytest.mark.parametrize(
    "piece", ["existence", "plurals", "counting-hard", "counting-small-quant", "counting-adversarial"]
)
def test_valse_counts_are_right_in_captions_and_wrong_in_foils(config: WorldConfig, folder: Path, piece: str) -> None:
    bank = Bank(config, 0)
    vsr_rows(bank, "dev", PAIRS // 2), vsr_rows(bank, "test", PAIRS)
    svo_rows(bank, round(0.6 * PAIRS / 2) * 2)
    pool = dict(scene_pool(bank))
    for record in objects(folder, "valse")[piece].values():
        scene = pool[int(record["image_file"].removesuffix(".jpg"))]
        assert counted(scene, record["caption"])
        assert not counted(scene, record["foil"])


def test_valse_has_every_piece_in_the_official_form(folder: Path) -> None:
    files = objects(folder, "valse")
    assert set(files) == set(VALSE)
    for records in files.values():
        assert len(records) >= FEWEST
        for record in records.values():
            assert {"dataset", "image_file", "caption", "foil", "linguistic_phenomena", "classes"} <= set(record)
            assert record["mturk"]["caption"] == 3
            assert record["caption"] != record["foil"]


def test_sugarcrepe_has_its_seven_files(folder: Path) -> None:
    files = objects(folder, "sugarcrepe")
    assert set(files) == set(SUGARCREPE)
    for records in files.values():
        assert len(records) >= FEWEST
        assert all({"filename", "caption", "negative_caption"} <= set(r) for r in records.values())


def text_only_accuracy(pairs: list[tuple[str, str]]) -> float:
    """Sentences and word positions seen more often as right than as wrong in the even pairs, tried on the odd ones."""
    votes: Counter[object] = Counter()

    def features(text: str) -> list[object]:
        words = text.lower().split()
        return [text, *words, *enumerate(words), *pairwise(words)]

    for right, wrong in pairs[::2]:
        votes.update(features(right))
        votes.subtract(features(wrong))
    wins = [sum(votes[f] for f in features(a)) - sum(votes[f] for f in features(b)) for a, b in pairs[1::2]]
    return sum(1.0 if w > 0 else 0.5 if w == 0 else 0.0 for w in wins) / len(wins)


@pytest.mark.slow
@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_captions_and_foils_cannot_be_told_apart_as_text(preset: str, tmp_path: Path) -> None:
    config = world_config(preset, benchmark_pairs=1500)
    write_benchmarks(tmp_path / "b", config, seed=4)
    for kind, names in (("valse", VALSE), ("sugarcrepe", SUGARCREPE)):
        files = objects(tmp_path / "b", kind)
        for piece in set(names) - {"counting-adversarial", "add_att", "add_obj"}:
            foil = "foil" if kind == "valse" else "negative_caption"
            pairs = [(r["caption"], r[foil]) for r in files[piece].values()]
            accuracy = text_only_accuracy(pairs)
            assert accuracy < 0.5 + 3 * 0.5 / (len(pairs) / 2) ** 0.5, f"{kind}/{piece}: {accuracy:.2f}"


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


def test_karpathy_file_has_five_sentences_an_image(folder: Path) -> None:
    content = json.loads((folder / "coco" / "karpathy.json").read_text())
    assert Counter(i["split"] for i in content["images"]) == {"val": PAIRS // 10, "test": PAIRS // 5}
    ids = [s["sentid"] for image in content["images"] for s in image["sentences"]]
    assert len(set(ids)) == len(ids) == 5 * len(content["images"])
    assert all(s["raw"] for image in content["images"] for s in image["sentences"])


def named_images(folder: Path) -> set[str]:
    names = {row["image"] for split in ("dev", "test") for row in vsr(folder, split)}
    names |= {f"{row[k]}.jpg" for row in svo(folder) for k in ("pos_image_id", "neg_image_id")}
    for records in objects(folder, "valse").values():
        names |= {record["image_file"] for record in records.values()}
    for records in objects(folder, "sugarcrepe").values():
        names |= {record["filename"] for record in records.values()}
    names |= {f"{r['image_id']}.jpg" for r in json.loads((folder / "paragraphs/paragraphs_v1.json").read_text())}
    return names | {i["filename"] for i in json.loads((folder / "coco/karpathy.json").read_text())["images"]}


def test_every_named_image_is_there(folder: Path, config: WorldConfig) -> None:
    for image in named_images(folder):
        with Image.open(folder / "images" / image) as picture:
            assert picture.size == (config.image_size, config.image_size)


def texts(folder: Path) -> list[str]:
    found = [row["caption"] for split in ("dev", "test") for row in vsr(folder, split)]
    found += [row["sentence"] for row in svo(folder)]
    found += [r[k] for rs in objects(folder, "valse").values() for r in rs.values() for k in ("caption", "foil")]
    keys = ("caption", "negative_caption")
    found += [r[k] for rs in objects(folder, "sugarcrepe").values() for r in rs.values() for k in keys]
    found += [r["paragraph"] for r in json.loads((folder / "paragraphs/paragraphs_v1.json").read_text())]
    images = json.loads((folder / "coco/karpathy.json").read_text())["images"]
    return found + [s["raw"] for image in images for s in image["sentences"]]


def test_the_vocabulary_has_every_word_of_every_text(folder: Path, config: WorldConfig) -> None:
    words = set(vocabulary())
    found = texts(folder)
    for name in ("captions", "entities", "graphs"):
        for _, _, sample in training_set(config, 1, name, 400, workers=1):  # type: ignore[arg-type]
            found += [*sample.captions, *(r.predicate for r in sample.relations)]
            found += [" ".join((*e.attributes, e.label)) for e in sample.entities]
    used = {token for text in found for token in re.findall(r"[a-z]+|[^a-z\s]", text.lower())}
    assert used <= words, sorted(used - words)


def test_the_vocabulary_is_in_the_form_of_bert() -> None:
    tokens = vocabulary()
    assert tuple(tokens[:5]) == SPECIAL_TOKENS
    assert len(set(tokens)) == len(tokens)


def test_build_writes_the_whole_layout_and_equals_itself(tmp_path: Path) -> None:
    for name, workers in (("a", 1), ("b", 2)):
        build(tmp_path / name, 60, 3, preset="mini", workers=workers, benchmark_pairs=40)
    files = {p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file()}
    assert files == {p.relative_to(tmp_path / "b") for p in (tmp_path / "b").rglob("*") if p.is_file()}
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)
    assert {p.name for p in (tmp_path / "a").iterdir()} == set(
        ["captions", "entities", "graphs", "benchmarks", "vocab.txt", "relations.txt", "world.json"]
    )
    relations = (tmp_path / "a" / "relations.txt").read_text().split("\n")[:-1]
    assert relations == sorted(PRESETS["mini"].predicates)


def test_overwrite_replaces_the_old_world(tmp_path: Path) -> None:
    out = tmp_path / "world"
    out.mkdir()
    (out / "old.txt").write_text("old")
    build(out, 20, 0, preset="mini", workers=1, overwrite=True, benchmark_pairs=40)
    assert not (out / "old.txt").exists()
    assert json.loads((out / "world.json").read_text())["arguments"]["preset"] == "mini"
    assert [p.name for p in tmp_path.iterdir()] == ["world"]


def test_no_evaluation_image_is_a_training_image(tmp_path: Path) -> None:
    build(tmp_path / "w", 200, 0, preset="mini", workers=1, benchmark_pairs=40)
    evaluation = {p.read_bytes() for p in (tmp_path / "w" / "benchmarks" / "images").iterdir()}
    for name in ("captions", "entities", "graphs"):
        shards = ShardSet(tmp_path / "w" / name)
        assert not evaluation & {shards.read(i).image for i in range(len(shards))}


def test_facts_name_predicates_in_use(config: WorldConfig) -> None:
    bank = Bank(config, 0)
    for _, scene in scene_pool(bank)[:40]:
        assert {fact[1] for fact in facts(config, scene)} <= set(config.predicates)


def test_a_piece_that_falls_short_says_so(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    write_benchmarks(tmp_path / "benchmarks", world_config("mini", benchmark_pairs=PAIRS), seed=0)
    records = objects(tmp_path / "benchmarks", "valse")["actant-swap"]
    assert f"valse/actant-swap: {len(records)} rows instead of {PAIRS // 5}" in caplog.text
