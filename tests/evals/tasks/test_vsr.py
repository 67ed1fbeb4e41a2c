"""VSR's rule at its threshold, the calibrated figures beside it, its columns, its card, its files."""

import json
from pathlib import Path

import pytest
from support.official_files import VSR, linked

from relvlm.errors import UserError
from relvlm.evals.figures.shares import wilson
from relvlm.evals.tasks import vsr
from relvlm.evals.tasks.pairs import Pair


def row(score: float, label: int = 1, **fields: object) -> dict:
    return {"label": label, "relation": "on", "score": score, **fields}


def marks(*rows: dict) -> list[dict]:
    return [dict(v.marks) for v in vsr.verdicts(rows)]


@pytest.mark.parametrize(
    ("score", "label", "right"), [(0.5, 1, True), (0.4999, 1, False), (0.5, 0, False), (0.4999, 0, True)]
)
def test_one_half_counts_as_true(score: float, label: int, right: bool) -> None:
    (found,) = vsr.verdicts([row(score, label)])
    assert found.marks["overall"] == found.marks["topological"] == found.card.right == right
    assert found.marks["called_true"] == (score >= 0.5)


def test_a_card_shows_the_caption_its_truth_and_the_relation() -> None:
    shown = {"image": "a.jpg", "text": "the dog is left of the box"}
    true, false = vsr.verdicts([row(0.6, relation="left of", **shown), row(0.6, 0, relation="chasing", **shown)])
    assert (true.card.images, true.card.lines) == (("a.jpg",), (("true:", shown["text"], 0.6),))
    assert (true.card.piece, true.card.what, true.card.right) == ("projective", "left of", True)
    assert (false.card.lines[0][0], false.card.piece, false.card.right) == ("false:", "unallocated", False)


def test_units_are_named_by_split_and_id_else_by_line() -> None:
    found = vsr.verdicts([row(0.1, id=7, split="dev"), row(0.1)])
    assert [v.unit for v in found] == ["dev 7", "None 1"]


def test_the_median_calls_half_of_the_pairs_true() -> None:
    found = marks(row(0.1, 0), row(0.2, 0), row(0.3), row(0.4))
    assert [m["overall"] for m in found] == [True, True, False, False]
    assert all(m["calibrated_at_median"] for m in found)


def test_a_splits_median_is_its_own() -> None:
    first, second, third, fourth = marks(
        row(0.1, 0, split="a"), row(0.2, split="a"), row(0.8, 0, split="b"), row(0.9, split="b")
    )
    assert (second["a/calibrated_at_median"], second["calibrated_at_median"]) == (True, False)
    assert (third["b/calibrated_at_median"], third["calibrated_at_median"]) == (True, False)
    assert first["a/overall"] and first["a/topological"] and "b/overall" not in first
    assert not {"a/overall", "test_at_dev_threshold"} & fourth.keys()


def splits(dev: list[tuple[float, int]], test: list[tuple[float, int]]) -> list[dict]:
    found = []
    for split, pairs in (("dev", dev), ("test", test)):
        found += [row(score, label, split=split, id=i) for i, (score, label) in enumerate(pairs)]
    return found


def test_test_is_judged_at_the_best_threshold_of_dev() -> None:
    rows = splits([(0.1, 0), (0.2, 0), (0.3, 1), (0.4, 1)], [(0.1, 0), (0.35, 0), (0.15, 1), (0.45, 1)])
    found = vsr.TASK.metrics(rows)
    assert found["dev_threshold"] == pytest.approx(0.25)
    assert found["test_at_dev_threshold"] == 50
    assert found["test_at_dev_threshold_interval95"] == list(wilson(2, 4))
    assert [m.get("test_at_dev_threshold") for m in marks(*rows)] == [None] * 4 + [True, False, False, True]


@pytest.mark.parametrize("names", [("dev", "train"), ("test", "train")])
def test_without_dev_and_test_there_is_no_dev_threshold(names: tuple[str, str]) -> None:
    found = vsr.TASK.metrics([row(0.1, split=name) for name in names])
    assert "dev_threshold" not in found and set(found["by_split"]) == set(names)


def test_calibration_mends_a_bias_towards_false() -> None:
    scores = [(0.1 + 0.2 * (i % 2) + 0.001 * i, i % 2) for i in range(10)]
    found = vsr.TASK.metrics(splits(scores, scores))
    assert (found["overall"], found["called_true"], found["chance"]) == (50, 0, 50)
    assert found["calibrated_at_median"] == found["test_at_dev_threshold"] == 100
    assert found["by_split"]["dev"]["calibrated_at_median_interval95"] == list(wilson(10, 10))
    assert found["median_threshold"] == pytest.approx(0.2045)


def test_figures_of_a_split_are_those_of_its_rows_alone() -> None:
    rows = splits([(0.9, 1), (0.9, 0)], [(0.9, 1), (0.1, 1), (0.2, 1)])
    alone = [{k: v for k, v in r.items() if k != "split"} for r in rows]
    found = vsr.TASK.metrics(rows)["by_split"]
    assert found == {"dev": vsr.TASK.metrics(alone[:2]), "test": vsr.TASK.metrics(alone[2:])}
    assert found["dev"]["called_true"] == 100 and found["test"]["called_true"] == pytest.approx(100 / 3)


def test_categories_are_sorted_and_unlisted_relations_are_counted_and_named() -> None:
    rows = [row(0.9, relation=r) for r in ("on", "chasing", "left of", "near", "chasing")]
    found = vsr.TASK.metrics(rows)
    assert found["relations_counted_as_unallocated"] == {"chasing": 2}
    assert list(found["counts"].items()) == [
        ("projective", 1),
        ("proximity", 1),
        ("topological", 1),
        ("unallocated", 2),
    ]
    assert "relations_counted_as_unallocated" not in vsr.TASK.metrics(rows[:1])


def test_held_out_combinations_have_their_own_figure() -> None:
    rows = [row(0.9 if i else 0.1, id=i, held_out=i == 0) for i in range(4)]
    found = vsr.TASK.metrics(rows)
    assert (found["overall"], found["held_out"]["overall"], found["held_out"]["n"]) == (75, 0, 1)
    assert [m.get("held_out/overall") for m in marks(*rows)] == [False, None, None, None]


def figures(*names: str) -> dict:
    """Those of a VSR evaluation whose accuracy is 100 in every split and 40 in all."""
    part = {"interval95": [1, 99], "calibrated_at_median": 50.0, "calibrated_at_median_interval95": [2, 98]}
    part["chance"] = 50.0
    by_split = {name: part | {"overall": 100.0, "n": 1} for name in names}
    return part | {"task": "vsr", "overall": 40.0, "n": 9} | ({"by_split": by_split} if names else {})


@pytest.mark.parametrize(
    ("names", "columns"),
    [
        (("dev", "test"), {"VSR dev": ("dev/", 100.0), "VSR test": ("test/", 100.0)}),
        (
            ("random_dev", "random_test", "random_train"),
            {"VSR dev": ("random_dev/", 100.0), "VSR test": ("random_test/", 100.0)},
        ),
        (("random_dev", "zeroshot_test"), {"VSR": ("", 40.0)}),
        (("random_test", "zeroshot_test"), {"VSR": ("", 40.0)}),
        (("train",), {}),
        ((), {"VSR test": ("", 40.0)}),
    ],
)
def test_files_of_several_releases_are_one_column(names: tuple[str, ...], columns: dict) -> None:
    cells = vsr.TASK.cells(figures(*names))
    plain = {title: cell for title, cell in cells.items() if "calibrated" not in title}
    assert {t: (c.figure.removesuffix("overall"), c.value) for t, c in plain.items()} == columns
    for title, cell in plain.items():
        assert (cell.interval, cell.chance) == ((1, 99), 50)
        beside = cells[f"{title}, calibrated"]
        assert (beside.value, beside.interval, beside.chance, beside.n) == (50, (2, 98), 50, cell.n)
        assert beside.figure == cell.figure.replace("overall", "calibrated_at_median")


def test_main_columns_are_first_and_calibrated_ones_are_not_drawn_over_checkpoints() -> None:
    places = {column.title: column.place for column in vsr.TASK.columns}
    assert [places[t] for t in vsr.TITLES] == [0] * 3
    assert min(places[f"{t}, calibrated"] for t in vsr.TITLES) > 190  # after the dev columns of retrieval
    drawn = {c.title: (c.over_steps, c.axis) for c in vsr.TASK.columns}
    assert drawn["VSR test"] == (True, "fine") and drawn["VSR test, calibrated"] == (False, None)


@pytest.mark.parametrize(("release", "sizes"), [("random_2022", (1012, 2024)), ("random", (1097, 2195))])
def test_both_releases_are_read(shared: Path, tmp_path: Path, release: str, sizes: tuple[int, int]) -> None:
    pairs = vsr.load(linked(shared / "data/benchmarks/vsr" / release, VSR, tmp_path / "vsr")).pairs
    found = [pair.row["split"] for pair in pairs]
    assert (found.count("dev"), found.count("test")) == sizes


def test_categories_cover_the_2022_release(shared: Path, tmp_path: Path) -> None:
    folder = linked(shared / "data/benchmarks/vsr/random_2022", VSR, tmp_path / "vsr")
    relations = {pair.row["relation"] for pair in vsr.load(folder).pairs}
    assert relations <= vsr.CATEGORY.keys()


def written(path: Path, **changes: object) -> Path:
    line = {"image": "a.jpg", "caption": "a dog", "label": 1, "relation": "on", **changes}
    path.write_text(json.dumps(line) + "\n")
    return path


def test_an_example_is_one_pair(tmp_path: Path) -> None:
    fields = {"label": 1, "relation": "on", "id": 0, "split": "dev", "held_out": True}
    found = vsr.load(written(tmp_path / "vsr_dev.jsonl", held_out="True"))
    assert found.examples == ((Pair("a.jpg", "a dog", fields),),)


def test_a_label_is_0_or_1(tmp_path: Path) -> None:
    assert vsr.load(written(tmp_path / "dev.jsonl", label=0)).pairs
    with pytest.raises(UserError, match="row 0: label: 2 is neither 0 nor 1"):
        vsr.load(written(tmp_path / "dev.jsonl", label=2))


@pytest.mark.parametrize("field", ["label", "relation", "score"])
def test_scores_without_a_field_are_refused(field: str) -> None:
    with pytest.raises(UserError, match=f"{field}: absent"):
        vsr.verdicts([{k: v for k, v in row(0.5).items() if k != field}])


def folder_of(path: Path, *splits: str) -> Path:
    for split in splits:
        lines = [{"image": f"{i}.jpg", "caption": "a dog", "label": i % 2, "relation": "on"} for i in range(4)]
        (path / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.mark.parametrize(
    ("splits", "counted"),
    [(("train", "dev", "test"), 8), (("train", "test"), 4), (("train",), 4), (("vsr_a_train", "vsr_b_dev"), 4)],
)
def test_a_training_split_beside_others_is_in_no_figure_of_all(
    tmp_path: Path, splits: tuple[str, ...], counted: int
) -> None:
    pairs = vsr.load(folder_of(tmp_path, *splits)).pairs
    rows = [{**p.row, "score": float(p.row["split"].endswith("train") != p.row["label"])} for p in pairs]
    found = vsr.TASK.metrics(rows)
    assert (found["n"], found["counts"]["topological"]) == (counted, counted)
    assert found["overall"] == found["calibrated_at_median"] == (0 if splits == ("train",) else 100)
    assert {name: part["overall"] for name, part in found["by_split"].items()} == {
        name.removeprefix("vsr_"): 0 if name.endswith("train") else 100 for name in splits
    }
    assert found["by_split"][splits[0].removeprefix("vsr_")]["called_true"] == 50


def test_a_training_split_beside_others_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    vsr.load(folder_of(tmp_path, "train"))
    assert not caplog.text
    vsr.load(folder_of(tmp_path, "dev"))
    assert "train" in caplog.text and "in no figure but its own" in caplog.text
