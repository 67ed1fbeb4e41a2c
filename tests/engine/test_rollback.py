"""Which checkpoint a run goes back to, which are removed, and what a process that dies in between leaves."""

import dataclasses
import json
from dataclasses import replace
from pathlib import Path

import pytest

from relvlm import checkpoints
from relvlm.engine import rollback
from relvlm.engine.rollback import forget_if_before, go_back, remove_undone, started_from
from relvlm.engine.run_state import PROGRESS, Progress, read_progress
from relvlm.engine.trouble import TooManyBadSteps
from relvlm.errors import UserError

BAD = Progress(17, skipped=4, skipped_in_all=5)


def save(out: Path, progress: Progress) -> Path:
    path = out / "checkpoints" / checkpoints.name_of(progress.step)
    path.mkdir(parents=True)
    (path / PROGRESS).write_text(json.dumps(dataclasses.asdict(progress)))
    checkpoints.write_manifest(path, {PROGRESS: checkpoints.file_record(path / PROGRESS)})
    return path


@pytest.fixture
def out(tmp_path) -> Path:
    """Good checkpoints of steps 5 and 10, one amid spikes of 12, and one amid skipped steps of 15."""
    for progress in (Progress(5, 5), Progress(10, 10, 10), Progress(12, spiking=1), Progress(15, skipped=2)):
        save(tmp_path, progress)
    rows = "".join(f"{step},x\n" for step in range(1, 18))
    (tmp_path / "metrics.csv").write_text(f"step,dataset\n{rows}")
    return tmp_path


def back(out: Path, progress: Progress = BAD, most: int = 3) -> Path:
    return go_back(out, TooManyBadSteps(progress, "step 17: bad"), most)


def steps(out: Path) -> list[int]:
    return [checkpoints.step_of(path) for path in checkpoints.saved(out / "checkpoints")]


def test_it_goes_to_the_newest_good_checkpoint_and_removes_those_after_it(out):
    assert back(out).name == "step_0000010"
    assert steps(out) == [5, 10] and (out / "checkpoints/latest").read_text() == "step_0000010"


def test_a_good_checkpoint_that_is_damaged_is_passed_over(out):
    (out / "checkpoints/step_0000010" / PROGRESS).write_text("{}")
    assert back(out).name == "step_0000005" and steps(out) == [5]


def test_the_data_of_the_steps_since_is_passed_over(out):
    start = started_from(out, read_progress(back(out)))
    assert start == Progress(10, 10, 10, 0, skipped_in_all=5, data_offset=7, rollbacks=1)
    again = replace(start, step=14, skipped=4)
    start = started_from(out, read_progress(back(out, again)))
    assert (start.step, start.data_offset, start.rollbacks) == (10, 7 + 4, 2)


def test_another_checkpoint_starts_as_it_was_saved(out):
    back(out)
    for saved in (Progress(5, 5), Progress(12, data_offset=7, rollbacks=1), Progress(10, data_offset=9, rollbacks=2)):
        assert started_from(out, saved) == saved


def test_the_rows_that_are_made_anew_are_kept_beside(out):
    back(out)
    kept = (out / "trouble/rollback_1.csv").read_text().splitlines()
    assert kept == ["step,dataset", *(f"{step},x" for step in range(11, 18))]


@pytest.mark.parametrize(("rollbacks", "ends"), [(2, False), (3, True)])
def test_it_goes_back_so_many_times_at_most(out, rollbacks, ends):
    found = replace(BAD, rollbacks=rollbacks)
    if not ends:
        assert back(out, found)
        return
    with pytest.raises(UserError, match=r"step 17: bad \(the run has gone back 3 times; max_rollbacks\)"):
        back(out, found)
    assert steps(out) == [5, 10, 12, 15]


def test_without_a_good_checkpoint_it_ends(tmp_path):
    save(tmp_path, Progress(15, skipped=2))
    with pytest.raises(UserError, match="no good checkpoint"):
        back(tmp_path)


def test_a_death_amid_the_removal_is_made_good_at_the_next_start(out, monkeypatch):
    with monkeypatch.context() as dying:
        dying.setattr(rollback, "remove", lambda path: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            back(out)
    assert steps(out) == [5, 10, 12, 15]
    remove_undone(out)
    assert steps(out) == [5, 10]
    save(out, Progress(11, rollbacks=1))
    remove_undone(out)
    assert steps(out) == [5, 10, 11]  # of the run that went back


@pytest.mark.parametrize(("newest", "forgotten"), [(None, True), ("step_0000005", True), ("step_0000010", False)])
def test_a_run_that_begins_before_the_last_rollback_keeps_what_it_makes_anew(out, newest, forgotten):
    again = out / "checkpoints" / newest if newest else None
    back(out)
    forget_if_before(out, again)
    assert (started_from(out, Progress(10, 10, 10)) == Progress(10, 10, 10)) == forgotten
    save(out, Progress(20, 20, 20))
    remove_undone(out)
    assert steps(out) == ([5, 10, 20] if forgotten else [5, 10])
