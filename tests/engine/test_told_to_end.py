"""`relvlm train` told to end: it saves, says so by its exit status, and the same command ends as if unbroken."""

import signal
import time

import pytest
from support.launched import rows, start, wait_for_steps

from relvlm.engine import state_files
from relvlm.pretrained import latest
from relvlm.stopping import REQUEUE, SIGNALS

OFTEN = ["steps=60", "checkpoint.every=1000", "log_every=1"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def unbroken(tiny, tmp_path_factory) -> list[dict[str, str]]:
    out = tmp_path_factory.mktemp("unbroken")
    (process,) = start([*tiny, *OFTEN, f"out={out}"])
    text = process.communicate()[1]
    assert process.returncode == 0, text[-2000:]
    return rows(out)


def test_each_signal_saves_what_there_is_and_the_run_ends_as_unbroken(tiny, unbroken, tmp_path):
    command = [*tiny, *OFTEN, f"out={tmp_path}"]
    for told, number in enumerate(SIGNALS, 1):
        (process,) = start(command)
        wait_for_steps(tmp_path, 10 * told, process)
        process.send_signal(number)
        text = process.communicate()[1]
        found, saved = rows(tmp_path), latest(tmp_path / "checkpoints")
        assert process.returncode == REQUEUE, text[-2000:]
        assert f"told to end by {number.name}: saved {saved}" in text and "Traceback" not in text
        assert saved.name == f"step_{int(found[-1]['step']):07d}" and found == unbroken[: len(found)]
    assert len(found) < 60
    (process,) = start(command)
    process.communicate()
    assert process.returncode == 0 and rows(tmp_path) == unbroken


def test_what_one_of_two_ranks_is_told_ends_both_after_the_same_step(tiny, tmp_path):
    command = [*tiny, "steps=100000", "checkpoint.every=100000", "log_every=1", f"out={tmp_path}"]
    ranks = start(command, ranks=2)
    wait_for_steps(tmp_path, 3, ranks[0])
    ranks[1].send_signal(signal.SIGUSR1)
    texts = [process.communicate()[1] for process in ranks]
    assert [process.returncode for process in ranks] == [REQUEUE, REQUEUE], texts
    saved = latest(tmp_path / "checkpoints")
    assert f"another rank was told to end: saved {saved}" in texts[0]
    assert f"told to end by SIGUSR1: saved {saved}" in texts[1]
    assert len(list(saved.glob(state_files.PATTERN))) == 2
    assert saved.name == f"step_{int(rows(tmp_path)[-1]['step']):07d}"


def test_before_the_first_step_there_is_nothing_to_save(tiny, tmp_path):
    (process,) = start([*tiny, f"out={tmp_path}"])
    deadline = time.monotonic() + 120
    while not (tmp_path / "lease").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == REQUEUE
    assert latest(tmp_path / "checkpoints") is None
