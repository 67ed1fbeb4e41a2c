"""Whether a process lives: ended, a zombie, another one of its pid, on another host."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from relvlm.engine import process
from relvlm.engine.process import Process, is_alive, own


def child(run: subprocess.Popen) -> Process:
    return replace(own(), pid=run.pid, started=process._start_of(run.pid) or "")


def test_this_process_lives():
    assert own().pid == os.getpid() and is_alive(own()) is True


def test_a_process_that_has_ended_does_not_nor_does_one_that_nobody_has_waited_for():
    run = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    known = child(run)
    assert is_alive(known) is True
    run.kill()
    os.waitid(os.P_PID, run.pid, os.WEXITED | os.WNOWAIT)  # its entry stays: a zombie
    assert is_alive(known) is False
    run.communicate()
    assert is_alive(known) is False


def test_a_later_process_of_the_same_pid_is_another():
    assert is_alive(replace(own(), started="12")) is False


@pytest.mark.parametrize("change", [{"host": "gpu7"}, {"where": "another boot or container"}])
def test_of_a_process_elsewhere_nothing_is_known(change):
    assert is_alive(replace(own(), **change)) is None


def test_a_system_without_proc_knows_pids_alone(monkeypatch, tmp_path):
    monkeypatch.setattr(process, "_PROC", tmp_path)
    run = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    known = child(run)
    assert known.where == "" and is_alive(known) is True
    run.kill()
    run.communicate()
    assert is_alive(known) is False


def test_to_look_at_a_pid_is_no_signal(monkeypatch, tmp_path):
    monkeypatch.setattr(process, "_PROC", tmp_path)
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append((pid, number)))
    assert process._start_of(7) == "" and sent == [(7, 0)]


@pytest.mark.parametrize(("state", "started"), [("S", "22"), ("R", "22"), ("Z", None), ("X", None)])
def test_the_start_is_the_22nd_number_of_its_line(monkeypatch, tmp_path, state, started):
    """As of proc(5); the name may hold what it likes."""
    monkeypatch.setattr(process, "_PROC", tmp_path)
    for pid in ("self", "7"):
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "stat").write_text(f"7 (a) 1 (b) {state} {' '.join(map(str, range(4, 53)))}")
    assert process._start_of(7) == started and process._start_of(8) is None
