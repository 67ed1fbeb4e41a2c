"""The jobs of a run in Slurm's queue (here a made squeue)."""

from pathlib import Path

import pytest

from relvlm import jobs
from relvlm.errors import UserError


def made_squeue(folder: Path, text: str, monkeypatch) -> None:
    path = folder / "squeue"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_the_jobs_of_a_folder_are_those_that_carry_it(tmp_path, monkeypatch):
    own, other = jobs.mark(tmp_path / "a"), jobs.mark(tmp_path / "ab")
    lines = [
        f"7|RUNNING|1:02|1-00:00:00|2|node[1-2]|{own}",
        f"8|RUNNING|1:02|1:00|1|node3|{other}",
        "9|RUNNING|1:02|1:00|1|node3|(null)",
        f"10_1|PENDING|0:00|1:00|1|(Dependency)|{own}",
    ]
    made_squeue(tmp_path, "cat <<'END'\n" + "\n".join(lines) + "\nEND", monkeypatch)
    assert jobs.lines(tmp_path / "a") == [
        "job   state    elapsed  limit       nodes  where or why",
        "7     RUNNING  1:02     1-00:00:00  2      node[1-2]",
        "10_1  PENDING  0:00     1:00        1      (Dependency)",
    ]


def test_a_bar_in_the_folders_name_is_no_column(tmp_path, monkeypatch):
    out = tmp_path / "a|b"
    made_squeue(tmp_path, f"echo '7|RUNNING|1|2|3|n|{jobs.mark(out)}'", monkeypatch)
    assert jobs.lines(out)[1].split() == ["7", "RUNNING", "1", "2", "3", "n"]


def test_no_job_is_said(tmp_path, monkeypatch):
    made_squeue(tmp_path, "true", monkeypatch)
    assert jobs.lines(tmp_path / "a") == [f"no job of {tmp_path}/a in the queue"]


def test_a_queue_that_does_not_answer_is_one_line(tmp_path, monkeypatch):
    made_squeue(tmp_path, "echo 'error: no controller' >&2; exit 1", monkeypatch)
    with pytest.raises(UserError, match=r"^squeue: error: no controller$"):
        jobs.lines(tmp_path)


def test_without_slurm_it_says_where_to_ask(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="no squeue on PATH"):
        jobs.lines(tmp_path)
