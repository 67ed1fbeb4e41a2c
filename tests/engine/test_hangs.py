"""`relvlm train` where a process stops or dies: the run ends, names which one it was, and leaves all stacks."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from support.launched import start, wait_for_steps

from relvlm.stopping import REQUEUE

pytestmark = pytest.mark.slow

ENDLESS = ["steps=100000", "checkpoint.every=100000", "log_every=1"]
SOON = ["deadlines={start: 120, first_step: 120, step: 8, save: 60}"]
MOST_S = 120  # of which the deadline is 8


def ends(processes: list[subprocess.Popen]) -> list[tuple[int, list[str]]]:
    """Exit status and lines of each rank; a rank that is stopped ends with the rest of its job."""
    found = []
    for process in processes:
        text = process.communicate(timeout=MOST_S)[1]
        found.append((process.returncode, text.splitlines()))
    return found


def children(process: subprocess.Popen) -> list[int]:
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [pid for pid in map(int, listed) if "relvlm" in Path(f"/proc/{pid}/cmdline").read_text()]


def is_gone(pid: int) -> bool:
    """Or a zombie, where nobody has asked for its status."""
    path = Path(f"/proc/{pid}/stat")
    return not path.exists() or path.read_text().rpartition(")")[2].split()[0] in "ZX"


def test_a_rank_that_is_stopped_is_named_by_the_others(tiny, tmp_path):
    ranks = start([*tiny, *ENDLESS, *SOON, f"out={tmp_path}"], ranks=2)
    wait_for_steps(tmp_path, 30, ranks[0])
    ranks[1].send_signal(signal.SIGSTOP)
    ((status, lines),) = ends(ranks[:1])
    ranks[1].kill()
    assert status == REQUEUE
    assert (
        lines[-1].startswith("error: rank 1 on ") and f"(pid {ranks[1].pid}) has said nothing since step " in lines[-1]
    )
    assert lines[-1].endswith(f"; stacks in {tmp_path}/trouble/000001") and "Traceback" not in "".join(lines)
    stopped = (tmp_path / "trouble/000001/cause.txt").read_text().splitlines()[2]
    assert stopped.startswith("rank 1 on ") and ": step " in stopped
    assert "train_step" in (tmp_path / "trouble/000001/rank_00000.txt").read_text()
    ranks[1].communicate()


def test_a_rank_that_is_stopped_for_less_than_the_deadline_is_waited_for(tiny, tmp_path):
    command = [*tiny, "steps=90", "checkpoint.every=100000", "log_every=1", *SOON, f"out={tmp_path}"]
    ranks = start(command, ranks=2)
    wait_for_steps(tmp_path, 30, ranks[0])
    ranks[1].send_signal(signal.SIGSTOP)
    time.sleep(3)
    ranks[1].send_signal(signal.SIGCONT)
    assert [status for status, _ in ends(ranks)] == [0, 0]


def test_a_rank_that_is_killed_is_named_by_the_others(tiny, tmp_path):
    batch = "data.batch={captions: 6, entities: 12, mrc: 6, vsg: 6}"
    ranks = start([*tiny, *ENDLESS, batch, f"out={tmp_path}"], ranks=3)
    wait_for_steps(tmp_path, 30, ranks[0])
    ranks[1].kill()
    (zero, first), (_, _), (two, other) = ends(ranks)
    assert sorted([zero, two]) == [4, REQUEUE]  # the one that looked for the cause, and the one that followed
    said = [line for line in (*first, *other) if line.startswith("error: ")]
    assert len(said) == 1 and f"(pid {ranks[1].pid}) died, last seen in step " in said[0]
    assert said[0] in (first[-1], other[-1])
    assert {path.name for path in (tmp_path / "trouble/000001").iterdir()} == {
        "cause.txt", "rank_00000.txt", "rank_00002.txt"
    }  # fmt: skip


def test_a_loader_worker_that_is_stopped_is_named(tiny, tmp_path):
    ranks = start([*tiny, *ENDLESS, *SOON, "data.workers=2", f"out={tmp_path}"], ranks=2)
    wait_for_steps(tmp_path, 30, ranks[0])
    worker = children(ranks[1])[0]
    os.kill(worker, signal.SIGSTOP)
    found = ends(ranks)
    said = [lines[-1] for _, lines in found if lines and lines[-1].startswith("error: ")]
    assert len(said) == 1 and "error: rank 1 on " in said[0]
    assert "waits for data in step " in said[0] and f"(pid {worker}) has said nothing for " in said[0]
    assert REQUEUE in [status for status, _ in found]
    limit = time.monotonic() + 30  # the kernel takes its time to end a process that stands still
    while not is_gone(worker) and time.monotonic() < limit:
        time.sleep(0.1)
    assert is_gone(worker)


def test_a_loader_worker_that_is_killed_is_named_and_ends_all_ranks(tiny, tmp_path):
    ranks = start([*tiny, *ENDLESS, *SOON, "data.workers=2", f"out={tmp_path}"], ranks=2)
    wait_for_steps(tmp_path, 30, ranks[0])
    worker = children(ranks[1])[0]
    os.kill(worker, signal.SIGKILL)
    (zero, first), (one, second) = ends(ranks)
    assert (zero, one) == (4, 2)
    assert second[-1].startswith("error: data.workers: loader worker") and f"{worker}" in second[-1]
    assert "error: rank 1 on " in first[-1] and f"{worker}) " in first[-1].partition("loader worker")[2]
