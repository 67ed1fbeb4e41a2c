"""Figures over checkpoints: which are main ones, which is best, by which one chooses."""

import json
from pathlib import Path

import pytest

from relvlm.errors import UserError
from relvlm.evals.checkpoints.history import History, axis_titles, chooser, common_titles, held_out_cells, read_history
from relvlm.evals.figures.main_table import Cell


def history(**figures: list[float]) -> History:
    titles = {name.replace("_", " ").replace(" at ", "@"): values for name, values in figures.items()}
    cells = [{t: Cell(v[i], None, 50.0, 9) for t, v in titles.items()} for i in range(3)]
    return History("run", (10, 20, 30), tuple(cells), ())


def test_titles_are_main_figures_that_all_checkpoints_have() -> None:
    found = history(SVO=[1, 2, 3], VSR_test=[3, 2, 1], COCO_TR_at_1=[1, 1, 1], Paragraphs_TR_at_5=[1, 1, 1])
    assert found.titles == ["VSR test", "SVO", "COCO TR@1"]
    found.cells[1].pop("SVO")  # type: ignore[attr-defined]
    assert found.titles == ["VSR test", "COCO TR@1"]


def test_the_best_is_the_earliest_of_equals() -> None:
    found = history(SVO=[1, 5, 5], VALSE=[4, 2, 3])
    assert (found.best("SVO"), found.best("VALSE")) == (1, 0)
    assert found.values("SVO") == [1, 5, 5]
    assert found.mean(["SVO", "VALSE"]) == [2.5, 3.5, 4]


def test_titles_of_several_runs_are_joined() -> None:
    both = [history(VALSE=[1, 2, 3]), history(VSR=[1, 2, 3], SVO=[1, 2, 3])]
    assert common_titles(both) == ["VSR", "VALSE", "SVO"]


def test_one_chooses_by_coco_dev_where_it_was_scored() -> None:
    assert chooser(history(SVO=[1, 2, 3])) is None
    assert chooser(history(VSR_dev=[1, 2, 3], COCO_TR_at_1=[1, 2, 3])) == "COCO TR@1"
    assert chooser(history(COCO_dev_TR_at_1=[1, 2, 3], COCO_TR_at_1=[1, 2, 3])) == "COCO dev TR@1"


def test_the_axes_are_of_recalls_at_1_and_of_accuracies() -> None:
    assert "COCO TR@1" in axis_titles("coarse") and "SVO" in axis_titles("fine")
    assert not any("dev" in title or "@5" in title for title in axis_titles("coarse"))


def test_results_of_checkpoints_are_read_with_intervals(tmp_path: Path) -> None:
    assert read_history(tmp_path, "A") is None
    for step, high in ((10, 0.4), (200, 0.6), (3000, 0.6)):
        folder = tmp_path / f"checkpoints_eval/step_{step:07d}"
        (folder / "sugarcrepe").mkdir(parents=True)
        if step == 3000:
            continue  # not evaluated yet
        rows = [{"label": f"0_{e}", "piece": "swap_obj", "score": s} for e, s in (("c", high), ("n", 0.5))]
        (folder / "sugarcrepe/scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        figures = {"task": "sugarcrepe", "overall": step, "interval95": [0, 1], "n": 1, "chance": 50.0}
        (folder / "sugarcrepe/metrics.json").write_text(json.dumps(figures))
    found = read_history(tmp_path, "A")
    assert found is not None and (found.name, found.steps) == ("A", (10, 200))
    assert [path.name for path in found.folders] == ["step_0000010", "step_0000200"]
    assert [cells["SugarCrepe"].interval for cells in found.cells] == [(0, 0), (100, 100)]
    assert found.values("SugarCrepe") == [10, 200]


@pytest.mark.parametrize("step", [0, 2])
def test_all_three_checkpoints_count(step: int) -> None:
    values = [1.0, 1.0, 1.0]
    values[step] = 2.0
    assert history(SVO=values).best("SVO") == step


@pytest.mark.parametrize(
    ("names", "message"), [(["step_x"], "is no step_<number>"), (["step_1", "step_01"], "two folders")]
)
def test_a_folder_that_names_no_step_of_its_own_is_refused(tmp_path: Path, names: list[str], message: str) -> None:
    for name in names:
        (tmp_path / "checkpoints_eval" / name).mkdir(parents=True)
        (tmp_path / "checkpoints_eval" / name / "metrics.json").write_text('{"task": "svo"}')
    with pytest.raises(UserError, match=message):
        read_history(tmp_path, "A")


def test_what_training_never_shows_is_counted_apart(tmp_path: Path) -> None:
    for task in ("vsr", "sugarcrepe"):
        (tmp_path / task).mkdir()
    vsr = [
        {"id": i, "split": split, "label": 1, "relation": "near", "score": score, "held_out": held}
        for i, (split, score, held) in enumerate(
            [("dev", 0.9, True), ("test", 0.9, True), ("test", 0.1, True), ("test", 0.9, False)]
        )
    ]
    (tmp_path / "vsr/scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in vsr))
    part = {"overall": 67.0, "interval95": [0, 1], "n": 3, "chance": 50.0, "calibrated_at_median": 50.0}
    part |= {"calibrated_at_median_interval95": [0, 1]}
    figures = {"task": "vsr", **part, "by_split": {"dev": part, "test": part}}
    (tmp_path / "vsr/metrics.json").write_text(json.dumps(figures))
    rows = [{"label": f"0_{e}", "piece": "swap_obj", "score": 0.5} for e in "cn"]
    (tmp_path / "sugarcrepe/scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    figures = {"task": "sugarcrepe", "overall": 0.0, "interval95": [0, 1], "n": 1, "chance": 50.0}
    (tmp_path / "sugarcrepe/metrics.json").write_text(json.dumps(figures))
    found = held_out_cells(tmp_path)
    assert {title: (cell.value, cell.n, cell.chance) for title, cell in found.items()} == {
        "VSR dev": (100, 1, 50), "VSR test": (50, 2, 50),
    }  # fmt: skip
