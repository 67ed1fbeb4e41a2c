"""Which checkpoint: matrix, front, soups."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import relvlm
from relvlm.errors import UserError
from relvlm.evals.checkpoints import soup, soup_cli
from relvlm.evals.checkpoints.history import History
from relvlm.evals.checkpoints.selection import best_lines, correlation_lines, matrix, pareto, pareto_lines
from relvlm.evals.figures.main_table import Cell
from relvlm.evals.reporting import pareto_cli

Checkpoint = Callable[..., Path]
FIGURES = {
    "VALSE": [50.0, 60.0, 55.0],
    "COCO TR@1": [10.0, 8.0, 12.0],
    "COCO dev TR@1": [11.0, 9.0, 10.0],
}


@pytest.fixture()
def history() -> History:
    cells = [
        {t: Cell(values[i], (values[i] - 1, values[i] + 1), 0.0, 9) for t, values in FIGURES.items()}
        for i in range(3)
    ]
    return History("run", (10, 20, 30), tuple(cells), ())


def test_matrix_reports_each_task_at_the_checkpoint_that_another_chooses(history: History) -> None:
    assert set(history.titles) == set(FIGURES)
    place = {title: i for i, title in enumerate(history.titles)}
    found = matrix(history)
    assert found[place["VALSE"], place["COCO TR@1"]] == 8
    assert found[place["COCO TR@1"], place["VALSE"]] == 55
    assert found[place["COCO dev TR@1"], place["VALSE"]] == 50
    assert [found[i, i] for i in range(3)] == [max(history.values(t)) for t in history.titles]


def test_a_checkpoint_is_chosen_by_coco_dev_where_there_is_one(history: History) -> None:
    lines = best_lines([history])
    assert [line[0] for line in lines[1:]] == ["run, best by COCO dev TR@1", "run, last", "run, best by each"]
    assert lines[1][1] == "10"
    assert lines[3][lines[0].index("VALSE")] == "60.0"


def test_correlations_are_symmetric_and_1_with_themselves(history: History) -> None:
    lines = correlation_lines(history)
    values = [line[1:] for line in lines[1:]]
    assert all(values[i][i] == "1.00" for i in range(3))
    assert [list(row) for row in zip(*values, strict=True)] == values


def test_front_holds_what_nothing_beats() -> None:
    assert pareto([1, 2, 3, 3, 0], [3, 2, 1, 1, 0]) == [0, 1, 2, 3]
    assert pareto([1, 2], [1, 2]) == [1]
    assert pareto([1, 1], [1, 2]) == [1]


def test_front_of_a_run(history: History) -> None:
    assert [line[0] for line in pareto_lines(history)[1:]] == ["20", "30"]
    with pytest.raises(UserError, match="--fine: SVO: its checkpoints have"):
        pareto_lines(history, fine=["SVO"])


def test_pareto_of_a_run_that_was_not_evaluated_is_refused(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    pareto_cli.add_arguments(parser)
    with pytest.raises(UserError, match="no checkpoint is evaluated"):
        pareto_cli.main(parser.parse_args([str(tmp_path)]))


def run_soup(*arguments: object) -> None:
    parser = argparse.ArgumentParser()
    soup_cli.add_arguments(parser)
    soup_cli.main(parser.parse_args(list(map(str, arguments))))


@pytest.fixture()
def run(checkpoint: Checkpoint, tmp_path: Path) -> Path:
    for seed, step in enumerate((10, 20, 30)):
        checkpoint(tmp_path / "run/checkpoints", step, seed)
    return tmp_path / "run"


def projections(paths: list[Path]) -> list[torch.Tensor]:
    return [relvlm.load(path).text_projection.weight.detach() for path in paths]


def test_uniform_soup_is_the_mean_and_loads(run: Path, tmp_path: Path) -> None:
    run_soup("uniform", run, "--out", tmp_path / "soup")
    (found,) = projections([tmp_path / "soup"])
    mean = torch.stack(projections(sorted(run.glob("checkpoints/step_*")))).mean(0)
    torch.testing.assert_close(found, mean)
    recipe = json.loads((tmp_path / "soup/model.json").read_text())["soup"]
    assert list(recipe["of"]) == ["step_0000010", "step_0000020", "step_0000030"]


def test_last_takes_the_newest(run: Path, tmp_path: Path) -> None:
    run_soup("uniform", run, "--last", 1, "--out", tmp_path / "soup")
    found, last = projections([tmp_path / "soup", run / "checkpoints/step_0000030"])
    assert torch.equal(found, last)


def test_ema_soup_is_the_running_average(run: Path, tmp_path: Path) -> None:
    run_soup("ema", run, "--decay", 0.6, "--out", tmp_path / "soup")
    first, *others = projections(sorted(run.glob("checkpoints/step_*")))
    for weights in others:
        first = 0.6 * first + 0.4 * weights
    torch.testing.assert_close(projections([tmp_path / "soup"])[0], first)


def test_greedy_soup_leaves_out_what_makes_it_worse() -> None:
    a, b, c = paths = [Path(name) for name in "abc"]
    figures = {(a,): 1.0, (b,): 3.0, (c,): 2.0, (b, c): 2.5, (b, a): 3.5}
    members, steps = soup.greedy(paths, lambda chosen: figures[tuple(chosen)])
    assert members == [b, a]
    assert [(what, kept) for what, _, kept in steps] == [("b", True), ("+ c", False), ("+ a", True)]


def test_greedy_soup_by_a_dev_task(run: Path, suite: Path, tmp_path: Path) -> None:
    where = ["--task", "valse", "--annotations", suite / "valse", "--images", suite / "images"]
    run_soup("greedy", run, *where, "--out", tmp_path / "soup")
    recipe = json.loads((tmp_path / "soup/model.json").read_text())["soup"]
    assert len(recipe["tried"]) == 3 and recipe["tried"][0]["kept"]
    relvlm.load(tmp_path / "soup")


def test_checkpoints_of_two_models_or_diverged_ones_are_refused(run: Path, tmp_path: Path) -> None:
    first = run / "checkpoints/step_0000010"
    description = json.loads((first / "model.json").read_text())
    (first / "model.json").write_text(json.dumps(description | {"relations": ["a"]}))
    with pytest.raises(UserError, match="relations: not that of"):
        run_soup("uniform", run, "--out", tmp_path / "soup")
    (first / "model.json").write_text(json.dumps(description))
    weights = soup.read_weights(first)
    next(iter(weights.values())).fill_(float("nan"))
    soup.save_file(weights, first / "model.safetensors")
    with pytest.raises(UserError, match=r"step_0000010.*not finite"):
        run_soup("uniform", run, "--out", tmp_path / "soup")
    assert not (tmp_path / "soup").exists()


def test_greedy_without_a_task_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--task, --annotations, --images: missing"):
        run_soup("greedy", run, "--out", tmp_path / "soup")
