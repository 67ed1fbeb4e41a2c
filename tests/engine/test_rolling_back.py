"""`relvlm train` on data of which a part makes every loss NaN: it goes back, passes it over, and ends as it should."""

import json
import shutil
from pathlib import Path

import pytest
from support.launched import ROOT, rows, start

from relvlm import checkpoints
from relvlm.engine.run_state import Progress, read_progress

POISONED = ROOT / "tests/support/poisoned.py"
STEPS = ["steps=30", "max_skipped_steps=3", "log_every=4"]

pytestmark = pytest.mark.slow


def train(arguments: list[str], poison: str, ranks: int = 1) -> tuple[list[int], str]:
    """Exit statuses, and what rank 0 said."""
    processes = start(arguments, ranks, POISONED, POISON=poison)
    texts = [process.communicate()[1] for process in processes]
    return [process.returncode for process in processes], texts[0]


def zero(stage: int, folder: Path) -> list[str]:
    settings = json.loads((ROOT / f"configs/deepspeed/zero{stage}.json").read_text())
    if stage == 3:  # small tensors are sharded too, as large models' are
        settings["zero_optimization"]["stage3_param_persistence_threshold"] = 0
    path = folder / "deepspeed.json"
    path.write_text(json.dumps(settings))
    return ["--deepspeed_config", str(path)]


@pytest.mark.parametrize(
    ("stage", "dtype", "ranks"),
    [(0, "bf16", 2), (3, "fp32", 2)],
)
def test_a_run_goes_back_and_past_the_data_that_broke_it(stage, dtype, ranks, tiny, tmp_path):
    """Positions 12 to 20 are bad, which are steps 13 to 16, then 11 to 14, then 11."""
    out = tmp_path / "run"
    command = [*tiny, *STEPS, *zero(stage, tmp_path), f"dtype={dtype}", f"out={out}"]
    statuses, said = train(command, f"12-20:{ranks - 1}", ranks)
    assert statuses == [0] * ranks, said[-3000:]
    assert said.count(f"Goes back to {out}/checkpoints/step_0000010 and past the data of ") == 2
    assert "step 15: skipped" in said and "; 3 in a row, 3 in all" in said
    assert [row["step"] for row in rows(out) if row["skipped"] == "1"] == ["11"] and len(rows(out)) == 30
    found = read_progress(out / "checkpoints/step_0000030")
    assert (found.data_offset, found.rollbacks, found.skipped, found.skipped_in_all) == (10, 2, 0, 9)
    assert [row.split(",")[4] for row in (out / "trouble/rollback_1.csv").read_text().splitlines()] == [
        "skipped", "0", "0", "1", "1", "1", "1"
    ]  # fmt: skip
    if stage != 2:
        return
    again = tmp_path / "again"  # of the same start in processes of their own
    shutil.copytree(out, again)
    for path in checkpoints.saved(again / "checkpoints"):
        if checkpoints.step_of(path) > 10:
            shutil.rmtree(path)
    assert train([*command[:-1], f"out={again}"], f"12-20:{ranks - 1}", ranks)[0] == [0] * ranks
    assert rows(again) == rows(out)
    names = [f"checkpoints/step_0000030/{name}" for name in ("model.safetensors", "progress.json")]
    for name in names:
        assert (again / name).read_bytes() == (out / name).read_bytes()


def test_a_run_that_gets_no_further_ends_with_a_diagnosis_and_does_so_again(tiny, tmp_path):
    command = [*tiny, *STEPS, "max_rollbacks=2", f"out={tmp_path}"]
    for _ in range(2):
        (status,), said = train(command, "12-9999:0")
        last = said.splitlines()[-1]
        assert status == 2 and last.startswith(
            "error: step 14: the loss or its gradient is not finite, 4 times in a row"
        )
        assert "batch of " in last and "nan" in last and last.endswith("back 2 times; max_rollbacks)")
        assert (tmp_path / "checkpoints/latest").read_text() == "step_0000010"
    assert said.count("Goes back to") == 0


def test_bad_steps_in_a_row_are_counted_across_a_restart(tiny, tmp_path):
    """From step 13 on all are bad; the checkpoint of step 15 is within them."""
    command = [*tiny, *STEPS, "max_skipped_steps=6", "max_rollbacks=0", "checkpoint.keep=1", f"out={tmp_path}"]
    for _ in range(2):
        (status,), said = train(command, "12-9999:0")
        assert status == 2 and "error: step 19: the loss or its gradient is not finite, 7 times in a row" in said
        kept = [checkpoints.step_of(path) for path in checkpoints.saved(tmp_path / "checkpoints")]
        assert kept == [10, 15]  # the last good one is there still
    assert read_progress(tmp_path / "checkpoints/step_0000015") == Progress(15, 12, 12, 3, 3)


def test_without_a_good_checkpoint_a_run_says_so(tiny, tmp_path):
    (status,), said = train([*tiny, *STEPS, f"out={tmp_path}"], "2-9999:0")
    assert status == 2 and said.splitlines()[-1].endswith("(there is no good checkpoint to go back to)")
