"""A process that is told to end before it has anything to save."""

import os
import signal
import sys

import pytest
from support import programs

from relvlm.stopping import REQUEUE, SIGNALS, ask_for_requeue

TOLD = "import os, sys; from relvlm.stopping import end_at_once; end_at_once(); os.kill(os.getpid(), int(sys.argv[1]))"


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: signal.Signals(number).name)
def test_it_ends_at_once_with_the_status_that_requeues(number):
    done = programs.run("-c", f"{TOLD}; print('went on')", str(int(number)))
    assert (done.returncode, done.stdout) == (REQUEUE, "")


def test_when_all_is_saved_nothing_disturbs_the_end():
    script = "import os; from relvlm.stopping import SIGNALS, end_undisturbed; end_undisturbed()"
    done = programs.run("-c", f"{script}; [os.kill(os.getpid(), number) for number in SIGNALS]; print('went on')")
    assert (done.returncode, done.stdout) == (0, "went on\n")


@pytest.mark.parametrize(("world", "ended"), [("1", "out\nat the end\n"), ("2", "out\n")])
@pytest.mark.parametrize("status", [0, 3, None])
def test_one_of_several_processes_ends_without_taking_itself_down(world, ended, status):
    script = f"""
import atexit, sys; from relvlm.stopping import leave
atexit.register(print, "at the end"); print("out"); print("error", file=sys.stderr, end=""); leave({status})"""
    done = programs.run("-c", script, WORLD_SIZE=world)
    assert (done.returncode, done.stdout, done.stderr) == (status or 0, ended, "error")


def test_no_process_that_a_signal_killed_has_a_higher_status():
    """srun returns the highest of its tasks', and kills those that are left with SIGKILL."""
    assert all(128 + number < REQUEUE < 253 for number in range(1, signal.NSIG))


def test_the_word_costs_no_import_of_torch():
    done = programs.run("-c", "import sys, relvlm.stopping; print('torch' in sys.modules)")
    assert done.stdout == "False\n", sys.path


@pytest.mark.parametrize(("job", "asked"), [("77_3", "requeue 77_3\n"), ("", None)])
def test_the_job_that_the_launcher_names_is_requeued_and_no_other(job, asked, tmp_path, monkeypatch):
    (tmp_path / "scontrol").write_text(f'#!/bin/sh\necho "$*" > {tmp_path}/asked\n')
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    ask_for_requeue({"RELVLM_REQUEUE": job, "SLURM_JOB_ID": "77"})
    assert ((tmp_path / "asked").read_text() if (tmp_path / "asked").exists() else None) == asked


def test_without_scontrol_the_process_ends_as_it_would(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    ask_for_requeue({"RELVLM_REQUEUE": "77"})
