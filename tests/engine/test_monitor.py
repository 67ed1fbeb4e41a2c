"""metrics.csv: its columns, blank cells, and what a resumed run keeps of it."""

import csv
import errno
import io
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from support import programs

from relvlm.config.schema import Config, DataConfig, KindRatios
from relvlm.config.trouble import SpikesConfig
from relvlm.engine import monitor as monitor_module
from relvlm.engine.monitor import Monitor
from relvlm.errors import UserError

CONFIG = Config(steps=9, data=DataConfig(ratio=KindRatios(captions=1, mrc=1)))
COLUMNS = [
    "captions/itc",
    "captions/itm",
    "captions/mlm",
    "captions/itm_accuracy",
    "mrc/mrc",
    "mrc/mrc_accuracy",
]


def record(monitor: Monitor, step: int) -> None:
    names = ["itc", "itm", "mlm", "itm_accuracy"] if step % 2 else ["mrc", "mrc_accuracy"]
    values = {name: torch.tensor(step + i / 10) for i, name in enumerate(names)}
    monitor.record(step, "captions" if step % 2 else "mrc", f"set{step}", 1e-4 * step, 8, values)


def log(folder: Path, start: int, steps: range, config: Config = CONFIG) -> None:
    monitor = Monitor(config, folder, start)
    for step in steps:
        record(monitor, step)
    monitor.flush()
    monitor.close()


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_row_a_step_with_the_columns_of_the_kinds_that_are_drawn(tmp_path):
    log(tmp_path, 0, range(1, 4))
    found = rows(tmp_path)
    assert list(found[0]) == ["step", "dataset", "lr", "samples_per_s", "skipped", "spike", *COLUMNS]
    assert [row["step"] for row in found] == ["1", "2", "3"]
    assert (found[1]["dataset"], found[1]["lr"]) == ("set2", "0.0002")
    assert [float(found[0][c]) for c in COLUMNS[:4]] == pytest.approx([1.0, 1.1, 1.2, 1.3])
    assert float(found[1]["mrc/mrc_accuracy"]) == pytest.approx(2.1)
    assert all(float(row["samples_per_s"]) > 0 for row in found)


def test_cells_of_other_kinds_are_blank(tmp_path):
    log(tmp_path, 0, range(1, 3))
    captions, mrc = rows(tmp_path)
    assert [captions[c] for c in COLUMNS[4:]] == ["", ""]
    assert [mrc[c] for c in COLUMNS[:4]] == [""] * 4


def test_a_resumed_run_drops_the_rows_after_its_checkpoint(tmp_path):
    log(tmp_path, 0, range(1, 7))
    before = rows(tmp_path)
    log(tmp_path, 4, range(5, 8))
    found = rows(tmp_path)
    assert [row["step"] for row in found] == [str(s) for s in range(1, 8)]
    assert found[:4] == before[:4]


def test_a_line_torn_by_a_kill_is_dropped(tmp_path):
    log(tmp_path, 0, range(1, 5))
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("3")  # of step 30
    log(tmp_path, 4, range(5, 6))
    assert [row["step"] for row in rows(tmp_path)] == ["1", "2", "3", "4", "5"]


def test_a_new_run_starts_the_file_anew(tmp_path):
    log(tmp_path, 0, range(1, 7))
    log(tmp_path, 0, range(1, 3))
    assert [row["step"] for row in rows(tmp_path)] == ["1", "2"]


def test_kinds_that_come_or_go_at_a_resume_keep_the_columns_straight(tmp_path):
    log(tmp_path, 0, range(1, 4))
    log(tmp_path, 3, range(4, 5), replace(CONFIG, data=DataConfig(ratio=KindRatios(mrc=1, vsg=1))))
    found = rows(tmp_path)
    assert "captions/itc" not in found[0] and found[0]["vsg/itc"] == ""
    assert float(found[1]["mrc/mrc"]) == 2.0 and float(found[3]["mrc/mrc"]) == 4.0


def test_nothing_is_read_back_before_a_flush(tmp_path):
    monitor = Monitor(CONFIG, tmp_path, 0)
    record(monitor, 1)
    assert rows(tmp_path) == []
    monitor.flush()
    monitor.flush()  # of nothing
    assert len(rows(tmp_path)) == 1
    monitor.close()


def test_closing_after_a_failure_writes_nothing_more(tmp_path):
    """Averaging is a collective: one rank that fails must not start it alone."""
    monitor = Monitor(CONFIG, tmp_path, 0)
    record(monitor, 1)
    monitor.close()
    assert rows(tmp_path) == []


def test_tensorboard_keeps_the_step_of_the_checkpoint(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log(tmp_path, 0, range(1, 7))
    time.sleep(1.1)  # a file's name has its second; files of one second may be read in any order
    log(tmp_path, 5, range(6, 8))
    board = EventAccumulator(str(tmp_path / "tensorboard"), purge_orphaned_data=True).Reload()
    assert [event.step for event in board.Scalars("captions/itc")] == [1, 3, 5, 7]


def test_a_log_that_cannot_be_written_ends_no_training(tmp_path, monkeypatch, caplog):
    monitor = Monitor(CONFIG, tmp_path, 0)
    whole = (tmp_path / "metrics.csv").stat().st_size

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for step in (1, 2, 3):
        with monkeypatch.context() as broken:
            if step < 3:
                broken.setattr(monitor_module, "_write_all", full)
            record(monitor, step)
            monitor.flush()
        if step < 3:
            assert (tmp_path / "metrics.csv").stat().st_size == whole
    monitor.close()
    assert [row["step"] for row in rows(tmp_path)] == ["3"]
    warnings = [record.message for record in caplog.records]
    assert len(warnings) == 2 and "metrics.csv: 2 rows could not be written" in warnings[1]
    assert warnings[0].startswith(f"{tmp_path / 'metrics.csv'}: cannot be written: [Errno 28] No space left on device")


def test_half_a_row_is_taken_back(tmp_path, monkeypatch, caplog):
    monitor = Monitor(CONFIG, tmp_path, 0)
    before, whole = (tmp_path / "metrics.csv").read_text(), monitor_module._write_all

    def part(file: io.RawIOBase, data: bytes) -> None:
        whole(SimpleNamespace(write=lambda data: file.write(data[:9])), data)

    with monkeypatch.context() as broken:
        broken.setattr(monitor_module, "_write_all", part)
        record(monitor, 1)
        monitor.flush()
    assert (tmp_path / "metrics.csv").read_text() == before and "cannot be written" in caplog.text
    monitor.close()


def test_a_board_that_cannot_be_written_ends_no_training_either(tmp_path):
    """With a limit on the size of files, in a process of its own."""
    script = (
        "import resource, sys; sys.path.insert(0, sys.argv[1])\n"
        "import test_monitor as here; from pathlib import Path\n"
        "config = here.replace(here.CONFIG, steps=400)\n"
        "monitor = here.Monitor(config, Path(sys.argv[2]), 0)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))\n"
        "for step in range(1, 400):\n"
        "    here.record(monitor, step)\n"
        "    monitor.flush()\n"
        "monitor.close(); print('went on')\n"
    )
    done = programs.run("-c", script, Path(__file__).parent, tmp_path)
    assert done.stdout == "went on\n" and "Traceback" not in done.stderr, done.stderr
    assert done.stderr.count("metrics.csv: cannot be written: ") == done.stderr.count("tensorboard: cannot be wr") == 1
    written = rows(tmp_path)
    steps = [int(row["step"]) for row in written]
    assert 0 < len(steps) < 399 and steps == sorted(set(steps))  # a short row may fit where a longer one did not
    assert all(row["captions/itm_accuracy"] or row["mrc/mrc_accuracy"] for row in written)


def test_a_log_that_cannot_even_begin_is_an_error(tmp_path):
    (tmp_path / "metrics.csv").mkdir()
    with pytest.raises(UserError, match=r"metrics\.csv: cannot be written: "):
        Monitor(CONFIG, tmp_path, 0)


def test_a_step_that_is_skipped_or_a_spike_is_marked(tmp_path, caplog):
    monitor = Monitor(replace(CONFIG, spikes=SpikesConfig(window=8)), tmp_path, 0)
    for step, loss in enumerate([1.0] * 8 + [9.0, 1.0, float("nan")], 1):
        values = {"mrc": torch.tensor(loss), "mrc_accuracy": torch.tensor(100.0)}
        monitor.record(step, "mrc", "set", 0.1, 8, values, skipped=loss != loss)
    monitor.flush()
    monitor.close()
    assert [row["step"] for row in rows(tmp_path) if row["spike"] == "1"] == ["9"]
    assert [row["step"] for row in rows(tmp_path) if row["skipped"] == "1"] == ["11"]
    assert "step 9: spike: the losses of mrc come to 9; 1 in a row" in caplog.text
