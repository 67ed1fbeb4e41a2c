"""`relvlm plan` as a user types it."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def plan(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "relvlm.cli", "plan", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def test_the_recipe_fits_and_its_cost_is_told_for_both_ways() -> None:
    done = plan("--config", "configs/13m/rex_vlm.yaml", "--nodes", "4", "--gpus", "8", "--device", "h200")
    assert done.returncode == 0, done.stderr
    rows = [line.split("|")[1:-1] for line in done.stdout.splitlines() if line.startswith("|")]
    cells = {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows}
    assert {"captions", "entities", "mrc", "vsg", "ZeRO-0", "ZeRO-3", "ours", "official"} <= cells.keys()
    assert cells["entities"][2] == "3.96x"
    assert float(cells["ours"][3].replace(",", "")) < float(cells["official"][3].replace(",", ""))
    assert "Assumed" in done.stdout


def test_scaling_is_said_to_be_simulated_and_a_number_of_nodes_recommended() -> None:
    done = plan("--config", "configs/13m/rex_vlm.yaml", "--device", "h200", "--scaling")
    assert done.returncode == 0, done.stderr
    strong, weak = done.stdout.split("SIMULATED ")[1:]
    nodes = [
        [line.split("|")[1].strip() for line in part.splitlines()[3:] if line[:1] == "|"] for part in (strong, weak)
    ]
    assert nodes == [["1", "2", "4", "8", "16"], ["1", "2", "4", "8", "16", "32", "64"]]
    assert "share every batch alike: 1, 2, 4, 8, 16, 32 " in weak and "Recommended: 1 node, " in weak
    assert "efficiency" in weak.split("Recommended: ")[1]


@pytest.mark.parametrize("name", ["xvlm", "albef"])
def test_going_on_with_relations_fits_a_gpu_of_24_gb(name: str) -> None:
    done = plan("--config", f"configs/tune/{name}.yaml", "--gpus", "1", "--device", "rtx-4090")
    assert done.returncode == 0, done.stderr
    (row,) = [line.split("|")[1:-1] for line in done.stdout.splitlines() if line.startswith("| ZeRO-0")]
    assert 4 < float(row[5]) < 20


def test_a_momentum_teacher_is_in_the_memory_and_recomputing_said_to_be_left_out() -> None:
    done = plan("--config", "configs/13m/albef.yaml", "model.recompute=true")
    assert done.stdout.endswith("; model.recompute is left out (less memory, a third more FLOPs).\n")
    assert done.returncode == 0 and "| weights, teacher |" in done.stdout, done.stderr
    rows = [line.split("|") for line in done.stdout.splitlines() if line.startswith("| ZeRO-")]
    teacher = 0.90  # 208M parameters and 2 x 65,536 features of 256, in fp32
    assert [float(row[2]) for row in rows] == pytest.approx([0.39 + teacher] * 3 + [0.05 + teacher], abs=0.02)
    assert all(sum(map(float, row[2:6])) == pytest.approx(float(row[6]), abs=0.1) for row in rows)


def test_chunks_cost_a_forward_pass_and_save_memory() -> None:
    told = []
    for argument in ([], ["accumulate=4"]):
        done = plan("--config", "configs/13m/rex_vlm.yaml", *argument)
        assert done.returncode == 0, done.stderr
        rows = [line.split("|")[1:-1] for line in done.stdout.splitlines() if line.startswith("|")]
        cells = {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows}
        told.append((float(cells["captions"][0]), float(cells["mrc"][0]), float(cells["ZeRO-1"][3])))
        assert ("in 4 chunks" in done.stdout) == bool(argument)
    (flops, mrc_flops, memory), (more_flops, same_flops, less_memory) = told
    assert 1.2 < more_flops / flops < 4 / 3 and same_flops == mrc_flops and less_memory < memory / 3.9


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        (
            ["accumulate=17"],
            "accumulate: 17 chunks are more than a rank has pools of one captions batch (take",
        ),
        (["--gpus", "7"], "cannot be dealt to 7 ranks (numbers of ranks that fit: 1, 2, 4, 8, 16, 32; "),
        (["--mfu", "1.5"], "must be above 0 and at most 1"),
        (["--host-ms", "nan"], "must be a number of milliseconds from 0 up"),
        (["data.bach=3"], "did you mean 'batch'?"),
    ],
)
def test_what_cannot_be_planned_is_one_clear_error(argument: list[str], message: str) -> None:
    done = plan("--config", "configs/13m/rex_vlm.yaml", *argument)
    assert done.returncode == 2 and message in done.stderr and not done.stdout


def test_what_is_not_exact_is_told_apart_and_changes_nothing_else() -> None:
    recipe = ["--config", "configs/13m/rex_vlm.yaml"]
    options = ["model.vision.patch_keep=0.5", "low_resolution={steps: 100000, image_size: 160}"]
    plain, done = plan(*recipe).stdout, plan(*recipe, *options).stdout
    tables, assumed = plain.split("Assumed")
    assert "not exact" not in plain and done.startswith(tables) and done.endswith(assumed)
    rows = [line.split("|") for line in done.splitlines() if "(not exact)" in line]
    assert [row[1].strip() for row in rows] == [
        "model.vision.patch_keep: 0.5 (not exact)",
        "low_resolution: 100,000 steps at 160 px (not exact)",
        "all of these (not exact)",
    ]
    assert [row[3].strip() for row in rows] == ["32%", "8%", "37%"]
