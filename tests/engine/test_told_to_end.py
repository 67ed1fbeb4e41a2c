"""`relvlm train` told to end: it saves, says so by its exit status, and the same command ends as if unbroken."""

import csv
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from relvlm.engine.columns import CLOCKS
from relvlm.pretrained import latest
from relvlm.stopping import REQUEUE, SIGNALS

ROOT = Path(__file__).resolve().parents[2]
TRAIN = [sys.executable, "-m", "relvlm.cli", "train"]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
OFTEN = ["steps=60", "checkpoint.every=1000", "log_every=1"]

pytestmark = pytest.mark.slow


def losses(out: Path) -> list[dict[str, str]]:
    with (out / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k not in CLOCKS} for row in csv.DictReader(file)]


def start(arguments: list[str], **environment: str) -> subprocess.Popen:
    return subprocess.Popen([*TRAIN, *arguments], env=ENVIRONMENT | environment, cwd=ROOT, stderr=subprocess.PIPE)


def wait_for_steps(out: Path, count: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline:
        if (out / "metrics.csv").exists() and len(losses(out)) >= count:
            return
        time.sleep(0.02)
    pytest.fail(f"no {count} steps: {process.communicate()[1].decode()[-2000:]}")


@pytest.fixture(scope="module")
def unbroken(tiny, tmp_path_factory) -> list[dict[str, str]]:
    out = tmp_path_factory.mktemp("unbroken")
    assert start([*tiny, *OFTEN, f"out={out}"]).wait() == 0
    return losses(out)


def test_each_signal_saves_what_there_is_and_the_run_ends_as_unbroken(tiny, unbroken, tmp_path):
    command = [*tiny, *OFTEN, f"out={tmp_path}"]
    for told, number in enumerate(SIGNALS, 1):
        process = start(command)
        wait_for_steps(tmp_path, 10 * told, process)
        process.send_signal(number)
        text = process.communicate()[1].decode()
        rows, saved = losses(tmp_path), latest(tmp_path / "checkpoints")
        assert process.returncode == REQUEUE, text[-2000:]
        assert f"told to end by {number.name}: saved {saved}" in text and "Traceback" not in text
        assert saved.name == f"step_{int(rows[-1]['step']):07d}" and rows == unbroken[: len(rows)]
    assert len(rows) < 60 and start(command).wait() == 0
    assert losses(tmp_path) == unbroken


def test_what_one_of_two_ranks_is_told_ends_both_after_the_same_step(tiny, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1]), "WORLD_SIZE": "2"}
    command = [*tiny, "steps=100000", "checkpoint.every=100000", "log_every=1", f"out={tmp_path}"]
    ranks = [start(command, RANK=str(rank), LOCAL_RANK=str(rank), **meeting) for rank in range(2)]
    wait_for_steps(tmp_path, 3, ranks[0])
    ranks[1].send_signal(signal.SIGUSR1)
    texts = [process.communicate()[1].decode() for process in ranks]
    assert [process.returncode for process in ranks] == [REQUEUE, REQUEUE], texts
    saved = latest(tmp_path / "checkpoints")
    assert f"another rank was told to end: saved {saved}" in texts[0]
    assert f"told to end by SIGUSR1: saved {saved}" in texts[1]
    assert len(list(saved.glob("rng_*"))) == 2
    assert saved.name == f"step_{int(losses(tmp_path)[-1]['step']):07d}"


def test_before_the_first_step_there_is_nothing_to_save(tiny, tmp_path):
    process = start([*tiny, f"out={tmp_path}"])
    deadline = time.monotonic() + 120
    while not (tmp_path / "lease").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == REQUEUE
    assert latest(tmp_path / "checkpoints") is None
