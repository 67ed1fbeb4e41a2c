"""VALSE and SugarCrepe files: true captions, false foils, in the official form."""

import re
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import pytest
from support.worlds import PAIRS, fingerprint, holds, objects

from relvlm.relworld.bank import Bank
from relvlm.relworld.build import write_benchmarks
from relvlm.relworld.config import PRESETS, WorldConfig, world_config
from relvlm.relworld.foil_files import SUGARCREPE, VALSE, scene_pool, write_sugarcrepe, write_valse
from relvlm.relworld.scene import Scene

_STEMS = {s.rstrip("es"): s for s in PRESETS["full"].shape_names}


@pytest.mark.parametrize("piece", ["relations", "action-replacement", "actant-swap"])
def test_valse_relation_foils_are_false_and_captions_true(
    config: WorldConfig, folder: Path, piece: str, shown: Mapping[int, Scene]
) -> None:
    records = objects(folder, "valse")[piece]
    assert len(records) == PAIRS // 5
    for record in records.values():
        scene = shown[int(record["image_file"].removesuffix(".jpg"))]
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


@pytest.mark.parametrize(
    "piece", ["existence", "plurals", "counting-hard", "counting-small-quant", "counting-adversarial"]
)
def test_valse_counts_are_right_in_captions_and_wrong_in_foils(
    config: WorldConfig, folder: Path, piece: str, shown: Mapping[int, Scene]
) -> None:
    for record in objects(folder, "valse")[piece].values():
        scene = shown[int(record["image_file"].removesuffix(".jpg"))]
        assert counted(scene, record["caption"])
        assert not counted(scene, record["foil"])


def test_valse_has_every_piece_in_the_official_form(folder: Path) -> None:
    files = objects(folder, "valse")
    assert set(files) == set(VALSE)
    for records in files.values():
        assert len(records) == PAIRS // 5
        for record in records.values():
            assert {"dataset", "image_file", "caption", "foil", "linguistic_phenomena", "classes"} <= set(record)
            assert record["mturk"]["caption"] == 3
            assert record["caption"] != record["foil"]


def test_sugarcrepe_has_its_seven_files(folder: Path) -> None:
    files = objects(folder, "sugarcrepe")
    assert set(files) == set(SUGARCREPE)
    for records in files.values():
        assert len(records) == PAIRS // 5
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


def test_a_piece_that_falls_short_says_so(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    few = world_config(
        "mini", benchmark_pairs=PAIRS, shapes=2, colours=2, predicates=("left of", "right of", "pushing")
    )
    write_benchmarks(tmp_path / "benchmarks", few, seed=0)
    assert "action-replacement" not in objects(tmp_path / "benchmarks", "valse")
    assert f"valse/action-replacement: 0 rows instead of {PAIRS // 5}" in caplog.text


def test_files_are_the_same_in_every_version(folder: Path, config: WorldConfig) -> None:
    files = [path.read_text() for name in ("valse", "sugarcrepe") for path in sorted((folder / name).iterdir())]
    assert fingerprint(files) == {5: "75d53d3c933f", 2: "8ff6d335185d", 3: "30f097a16060"}[config.max_objects]


@pytest.mark.parametrize(("pairs", "pool", "rows"), [(40, 40, 20), (120, 60, 24)])
def test_files_and_their_scenes_follow_the_pairs_from_a_least_number_on(
    pairs: int, pool: int, rows: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bank = Bank(world_config("full", benchmark_pairs=pairs), 0)
    scenes = scene_pool(bank)
    assert len(scenes) == pool
    write_valse(bank, scenes, tmp_path / "valse")
    write_sugarcrepe(bank, scenes, tmp_path / "sugarcrepe")
    files = objects(tmp_path, "valse") | objects(tmp_path, "sugarcrepe")
    assert Counter(len(records) for records in files.values()).most_common(1)[0][0] == rows
    for piece, records in files.items():  # one that is full has nothing to say
        assert (f"/{piece}: {len(records)} rows instead of {rows}" in caplog.text) == (len(records) < rows)
