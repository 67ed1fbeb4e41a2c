"""Averages of checkpoints, and the folders that hold them."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import relvlm
from relvlm.errors import UserError
from relvlm.evals.checkpoints import soup, soup_cli

Checkpoint = Callable[..., Path]


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
    recipe = json.loads((tmp_path / "soup/config.json").read_text())["soup"]
    assert list(recipe["of"]) == ["step_0000010", "step_0000020", "step_0000030"]


def test_a_soup_takes_the_place_of_nothing_but_a_soup(run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for out, message in (
        (run, "holds something else than a soup"),
        (run / "checkpoints/step_0000010", "holds something else than a soup"),
        (tmp_path / "file", "is a file"),
    ):
        with pytest.raises(UserError, match=f"--out: .*{message}"):
            run_soup("uniform", run, "--out", out)
    assert len(list(run.glob("checkpoints/step_*/model.safetensors"))) == 3


def test_out_may_be_the_folder_it_runs_in_or_a_link(run: Path, tmp_path: Path, monkeypatch) -> None:
    for name in ("mine", "real"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    monkeypatch.chdir(tmp_path / "mine")
    for out in ("../link", "."):
        run_soup("uniform", run, "--out", out)
    assert all((tmp_path / name / "model.safetensors").is_file() for name in ("mine", "real"))
    assert (tmp_path / "link").is_symlink()


def test_a_negative_limit_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--limit: -1"):
        run_soup("greedy", run, "--limit", -1, "--out", tmp_path / "soup")


def test_checkpoints_of_one_name_are_told_apart_without_saying_where_they_lie(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    two = [checkpoint(tmp_path / f"runs/{name}/checkpoints", 10, seed) for seed, name in enumerate("ab")]
    run_soup("uniform", *two, "--out", tmp_path / "soup")
    recipe = json.loads((tmp_path / "soup/config.json").read_text())["soup"]
    assert recipe["of"] == {f"{name}/checkpoints/step_0000010": 0.5 for name in "ab"}


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
    recipe = json.loads((tmp_path / "soup/config.json").read_text())["soup"]
    assert len(recipe["tried"]) == 3 and recipe["tried"][0]["kept"]
    relvlm.load(tmp_path / "soup")


def test_checkpoints_of_two_models_or_diverged_ones_are_refused(run: Path, tmp_path: Path) -> None:
    first = run / "checkpoints/step_0000010"
    description = json.loads((first / "config.json").read_text())
    (first / "config.json").write_text(json.dumps(description | {"relations": ["a"]}))
    with pytest.raises(UserError, match="relations: not that of"):
        run_soup("uniform", run, "--out", tmp_path / "soup")
    (first / "config.json").write_text(json.dumps(description))
    weights = soup.read_weights(first)
    next(iter(weights.values())).fill_(float("nan"))
    soup.write_tensors(first / "model.safetensors", weights)
    with pytest.raises(UserError, match=r"step_0000010.*not finite"):
        run_soup("uniform", run, "--out", tmp_path / "soup")
    assert not (tmp_path / "soup").exists()


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("uniform", ("--decay", 0.5), "--decay: of relvlm soup ema alone"),
        ("greedy", ("--decay", 0.5), "--decay: of relvlm soup ema alone"),
        ("uniform", ("--task", "vsr"), "--task: of relvlm soup greedy alone"),
        ("ema", ("--images", "photos"), "--images: of relvlm soup greedy alone"),
    ],
)
def test_what_makes_another_kind_of_soup_is_refused(run: Path, tmp_path: Path, kind, options, message) -> None:
    with pytest.raises(UserError, match=message):
        run_soup(kind, run, *options, "--out", tmp_path / "soup")
    assert not (tmp_path / "soup").exists()


def test_greedy_without_a_task_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--task, --annotations, --images: missing"):
        run_soup("greedy", run, "--out", tmp_path / "soup")


def test_shares_sum_to_one() -> None:
    assert soup.uniform_shares(4) == [0.25] * 4
    assert soup.ema_shares(3, 0.6) == pytest.approx([0.36, 0.24, 0.4])
    assert soup.ema_shares(1, 0.6) == [1]


def test_greedy_keeps_a_checkpoint_that_changes_nothing() -> None:
    a, b = paths = [Path(name) for name in "ab"]
    members, steps = soup.greedy(paths, lambda chosen: float(len(chosen) == 1 or 1))
    assert (members, [kept for *_, kept in steps]) == ([a, b], [True, True])


def test_greedy_compares_with_the_soup_so_far() -> None:
    a, b, c = paths = [Path(name) for name in "abc"]
    figures = {(a,): 3.0, (b,): 2.0, (c,): 1.0, (a, b): 4.0, (a, b, c): 3.5}
    members, steps = soup.greedy(paths, lambda chosen: figures[tuple(chosen)])
    assert members == [a, b]
    assert [figure for _, figure, _ in steps] == [3, 4, 3.5]


def test_a_soup_takes_the_place_of_an_older_one(run: Path, tmp_path: Path) -> None:
    run_soup("uniform", run, "--last", 1, "--out", tmp_path / "soup")
    (tmp_path / "soup/old").touch()
    run_soup("uniform", run, "--out", tmp_path / "soup")
    assert {path.name for path in (tmp_path / "soup").iterdir()} == {
        "model.safetensors",
        "config.json",
        "vocab.txt",
    }
    assert not list(tmp_path.glob(".soup*"))
    description = json.loads((tmp_path / "soup/config.json").read_text())
    assert description["step"] == 30  # the last one's
    assert soup.read_weights(tmp_path / "soup")["temperature"].dtype == torch.float32


def test_a_checkpoint_given_twice_or_of_another_vocabulary_is_refused(run: Path, tmp_path: Path) -> None:
    first, second = sorted((run / "checkpoints").glob("step_*"))[:2]
    with pytest.raises(UserError, match="given twice"):
        run_soup("uniform", first, first, "--out", tmp_path / "soup")
    words = (second / "vocab.txt").read_text().splitlines()
    (second / "vocab.txt").write_text("\n".join(words[::-1]))
    with pytest.raises(UserError, match=r"vocab\.txt: not that of"):
        run_soup("uniform", first, second, "--out", tmp_path / "soup")


def test_a_tensor_that_one_checkpoint_lacks_is_refused(run: Path, tmp_path: Path) -> None:
    first, second = sorted((run / "checkpoints").glob("step_*"))[:2]
    tensors = load_file(second / "model.safetensors")
    name = min(tensors)
    for odd in ({k: v for k, v in tensors.items() if k != name}, tensors | {name: torch.zeros(3, 1, 3)}):
        save_file(odd, second / "model.safetensors")
        with pytest.raises(UserError, match=rf"step_0000020.*{name}: not in all checkpoints"):
            run_soup("uniform", first, second, "--out", tmp_path / "soup")
    assert not (tmp_path / "soup").exists()
