"""`relvlm runs`: what a folder says of its run, also where it is half written or old."""

import json
import os
import shutil
import time
from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from pathlib import Path

import pytest

from relvlm import runs
from relvlm.engine.columns import HEAD
from relvlm.engine.ending import note_ending
from relvlm.engine.lease import STALE_S, Holder
from relvlm.errors import UserError
from relvlm.stopping import Stopped

TOLD = Stopped("told to end by SIGTERM", Path("step"))


def log(steps: range, skipped: int = 0) -> str:
    head = {"samples_per_s": "50.0", "step_s": "0.5", "skipped_so_far": str(skipped), "dataset": "coco"}
    rows = [",".join(head.get(name, str(step) if name == "step" else "1") for name in HEAD) for step in steps]
    return "".join(f"{line}\n" for line in [",".join(HEAD), *rows])


def make_run(
    folder: Path, *, steps: int = 40, done: int = 10, saved: tuple[int, ...] = (5,), lease: str = "",
    job: str | None = None, skipped: int = 0,
) -> Path:  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(f"name: mini\nsteps: {steps}\nthreads: 1\n")
    (folder / "metrics.csv").write_text(log(range(1, done + 1), skipped))
    for step in saved:
        (folder / f"checkpoints/step_{step:07d}").mkdir(parents=True)
    if lease:
        holder = Holder.own({"SLURM_JOB_ID": job} if job else {})
        (folder / "lease").mkdir()
        (folder / f"lease/000002.{lease}").write_text(json.dumps(asdict(holder)))
    return folder


def elsewhere(folder: Path, age: float) -> None:
    """Its holder is of another host, and has given its last sign so many seconds ago."""
    path = folder / "lease/000002.json"
    path.write_text(path.read_text().replace(os.uname().nodename, "gpu7"))
    os.utime(path, (time.time() - age,) * 2)


def dead(folder: Path) -> None:
    path = folder / "lease/000002.json"
    holder = json.loads(path.read_text())
    holder["process"]["started"] = "1"
    path.write_text(json.dumps(holder))


def test_a_running_one_has_a_pace_and_time_left(tmp_path):
    run = runs.read_run(make_run(tmp_path / "a", lease="json"))
    assert (run.name, run.state, run.step, run.steps) == ("mini", "running", 10, 40)
    assert (run.samples_per_s, run.left_s, run.checkpoint, run.trouble) == (50, 15, "step_0000005", None)


def test_one_of_another_host_runs_while_it_gives_signs(tmp_path):
    folder = make_run(tmp_path / "a", lease="json")
    for age, state in ((1, "running"), (STALE_S + 60, "stale")):
        elsewhere(folder, age)
        assert runs.read_run(folder).state == state


def test_one_whose_process_is_gone_is_stale(tmp_path):
    folder = make_run(tmp_path / "a", lease="json")
    dead(folder)
    run = runs.read_run(folder)
    assert (run.state, run.left_s) == ("stale", None)


@pytest.mark.parametrize(
    ("error", "job", "state", "trouble"),
    [
        (None, None, "ended", None),
        (TOLD, None, "stopped", None),
        (TOLD, "7", "requeued", None),
        (UserError("no room\non the disk"), "7", "failed", "UserError: no room"),
    ],
)
def test_how_it_has_ended_is_what_it_said(error, job, state, trouble, tmp_path):
    folder = make_run(tmp_path / "a", lease="released", job=job)
    note_ending(folder, error)
    run = runs.read_run(folder)
    assert (run.state, run.trouble) == (state, trouble)


@pytest.mark.parametrize(("saved", "lease", "state"), [
    ((40,), "", "ended"), ((5,), "", "unknown"), ((40,), "released", "ended"), ((5,), "released", "stopped"),
    ((40,), "json", "ended"),
])  # fmt: skip
def test_older_folders_say_less(saved, lease, state, tmp_path):
    folder = make_run(tmp_path / "a", saved=saved, lease=lease)
    if lease == "json":
        dead(folder)
    assert runs.read_run(folder).state == state


def test_skipped_steps_are_trouble(tmp_path):
    assert runs.read_run(make_run(tmp_path / "a", skipped=3)).trouble == "3 steps skipped"


def test_the_last_cause_that_a_watchdog_found_is_trouble_too(tmp_path):
    folder = make_run(tmp_path / "a", skipped=3)
    for number, cause in (("000002", "rank 1 on gpu7 died"), ("000001", "rank 0 is behind")):
        (folder / "trouble" / number).mkdir(parents=True)
        (folder / "trouble" / number / "cause.txt").write_text(f"{cause}\n\nrank 0 on gpu7: step 3\n")
    assert runs.read_run(folder).trouble == "rank 1 on gpu7 died"
    (folder / "trouble/000002/cause.txt").write_bytes(b"\xff")
    assert runs.table([runs.read_run(folder)])


def test_the_checkpoint_may_be_all_that_says_the_step(tmp_path):
    folder = make_run(tmp_path / "a", saved=(7, 20))
    (folder / "metrics.csv").unlink()
    (folder / "checkpoints/.step_0000030.tmp").mkdir()
    run = runs.read_run(folder)
    assert (run.step, run.checkpoint, run.samples_per_s) == (20, "step_0000020", None)


def test_of_a_long_log_the_end_is_read(tmp_path):
    folder = make_run(tmp_path / "a", done=3000)
    rows = runs.last_rows(folder / "metrics.csv")
    assert (folder / "metrics.csv").stat().st_size > runs.TAIL
    assert [row["step"] for row in rows] == [str(step) for step in range(2951, 3001)]


def test_a_row_that_is_being_written_is_none_yet(tmp_path):
    folder = make_run(tmp_path / "a", done=4)
    with (folder / "metrics.csv").open("a") as file:
        file.write("5,coco,")
    assert runs.last_rows(folder / "metrics.csv")[-1]["step"] == "4"


FILES = ["config.yaml", "metrics.csv", "lease/000002.json", "ending.json"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["cut", "empty", "bytes", "folder", "other", "gone", "locked"])
def test_nothing_that_is_half_written_stops_it(name, damage, tmp_path):
    folder = make_run(tmp_path / "a", lease="json")
    note_ending(folder, UserError("x"))
    path = folder / name
    text = path.read_bytes()
    for end in range(0, len(text), 7) if damage == "cut" else [0]:
        path.unlink() if path.is_file() else shutil.rmtree(path, ignore_errors=True)
        if damage == "folder":
            path.mkdir()
        elif damage == "locked":
            path.symlink_to(path.name)  # cannot be opened, not even by root
        elif damage != "gone":
            path.write_bytes(
                {"cut": text[:end], "empty": b"", "bytes": b"\xff\x00,\n\xfe,\x80\n", "other": b"[1, {a: .inf}]\n1\n"}[
                    damage
                ]
            )
        run = runs.read_run(folder)
        assert run.checkpoint == "step_0000005" and runs.table([run]) and json.dumps(asdict(run))


@pytest.mark.parametrize("value", ["steps: .inf", "steps: []", "steps: -3", "steps: 1e400", "name: [a]", "steps: 0"])
def test_odd_values_are_passed_over(value, tmp_path):
    folder = make_run(tmp_path / "a", lease="json")
    (folder / "config.yaml").write_text(value)
    assert runs.table([runs.read_run(folder)])


def run_command(capsys, *words: object) -> str:
    parser = ArgumentParser()
    runs.add_arguments(parser)
    assert runs.main(parser.parse_args(list(map(str, words)))) is None
    return capsys.readouterr().out


def test_a_folder_of_folders_is_a_table(tmp_path, capsys):
    make_run(tmp_path / "slurm/a", lease="json")
    note_ending(make_run(tmp_path / "b", done=40, lease="released"), None)
    (tmp_path / "logs").mkdir()
    head, *lines = run_command(capsys, tmp_path, tmp_path / "b").splitlines()
    assert head.split() == ["run", "state", "step", "of", "img/s", "left", "checkpoint", "last", "trouble"]
    assert [line.split() for line in lines] == [
        [f"{tmp_path}/b", "ended", "40", "40", "50", "step_0000005"],
        [f"{tmp_path}/slurm/a", "running", "10", "40", "50", "0:15", "step_0000005"],
    ]


def test_a_folder_of_another_user_that_is_closed_is_passed_over(tmp_path, capsys, monkeypatch):
    closed, exists = make_run(tmp_path / "closed"), Path.exists
    make_run(tmp_path / "open")

    def as_the_system_says(path: Path) -> bool:
        if path.parent == closed:  # root may look into any
            raise PermissionError(13, "Permission denied", str(path))
        return exists(path)

    monkeypatch.setattr(Path, "exists", as_the_system_says)
    _, line = run_command(capsys, tmp_path).splitlines()
    assert line.startswith(f"{tmp_path}/open ")


def test_programs_get_json(tmp_path, capsys):
    make_run(tmp_path / "a")
    (found,) = json.loads(run_command(capsys, tmp_path, "--json"))
    assert found["folder"] == f"{tmp_path}/a" and found["state"] == "unknown" and found["left_s"] is None


def test_no_run_is_said(tmp_path, capsys):
    assert run_command(capsys, tmp_path).startswith("no runs here")
    assert run_command(capsys, tmp_path, "--json") == "[]\n"
    with pytest.raises(UserError, match="gone: no such folder"):
        runs.main(Namespace(folders=[tmp_path / "gone"], json=False))
