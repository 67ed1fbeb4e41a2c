"""What becomes of a step's scalars: a row of all ranks, in every log that can be written."""

import csv
import errno
import logging
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from support import programs
from support.threads import Threads

from relvlm import ranks
from relvlm.config.schema import Config, DataConfig, KindRatios
from relvlm.config.trouble import SpikesConfig
from relvlm.engine import metrics_csv
from relvlm.engine import monitor as monitor_module
from relvlm.engine.columns import HEAD
from relvlm.engine.monitor import Monitor, uncounted
from relvlm.engine.train_step import Update
from relvlm.errors import UserError

CPU = torch.device("cpu")
CONFIG = Config(steps=9, device_tflops=0.001, data=DataConfig(ratio=KindRatios(captions=1, mrc=1)))
NAMES = {"captions": ["itc", "itm", "mlm", "itm_accuracy"], "mrc": ["mrc", "mrc_accuracy"]}
COLUMNS = [f"{kind}/{name}" for kind, names in NAMES.items() for name in names]


def chunk(step: int, images: int = 8) -> SimpleNamespace:
    kind = "captions" if step % 2 else "mrc"
    return SimpleNamespace(
        kind=kind, dataset=f"set{step}", images=images, text_ids=range(5 * images), samples_hash=step, left_out=[0] * 5
    )


def record(monitor: Monitor, step: int, chunks: int = 1, stepped: bool = True, norm: object = 2.5) -> None:
    batches = [chunk(step)] * chunks
    values = {name: torch.tensor(step + i / 10) for i, name in enumerate(NAMES[batches[0].kind])}
    monitor.record(step, batches, 1e-4 * step, Update(values, stepped, norm))


def made(folder: Path, start: int = 0, config: Config = CONFIG, flops=uncounted) -> Monitor:
    return Monitor(config, folder, start, CPU, flops)


def log(folder: Path, start: int, steps: range, config: Config = CONFIG, **options) -> None:
    monitor = made(folder, start, config, **options)
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
    assert list(found[0]) == [*HEAD, *COLUMNS]
    assert [row["step"] for row in found] == ["1", "2", "3"]
    assert (found[1]["dataset"], found[1]["lr"], found[1]["grad_norm"]) == ("set2", "0.0002", "2.5")
    assert [float(found[0][c]) for c in COLUMNS[:4]] == pytest.approx([1.0, 1.1, 1.2, 1.3])
    assert float(found[1]["mrc/mrc_accuracy"]) == pytest.approx(2.1)
    captions, mrc, _ = found
    assert [captions[c] for c in COLUMNS[4:]] == ["", ""] and [mrc[c] for c in COLUMNS[:4]] == [""] * 4


class Laps:
    """A clock of steps of 2 s, of which 1.5 s were spent in the forward pass."""

    def __init__(self, device: torch.device) -> None:
        self.laps = 0

    def phase(self, name: str) -> threading.Lock:
        return threading.Lock()

    def lap(self) -> None:
        self.laps += 1

    def read(self) -> list[dict[str, float]]:
        seconds = dict.fromkeys(monitor_module.PHASES, 0.0) | {"forward": 1.5, "data": 0.5}
        laps, self.laps = self.laps, 0
        return [dict(seconds) for _ in range(laps)]


def test_rates_are_those_of_the_step_in_all_its_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(monitor_module, "Clock", Laps)
    monitor = made(tmp_path, flops=lambda chunks: 5e8 * len(chunks))
    record(monitor, 1, chunks=2)
    monitor.flush()
    monitor.close()
    (row,) = rows(tmp_path)
    expected = {"samples_per_s": 8, "tokens_per_s": 40, "mfu": 0.5, "step_s": 2, "forward_s": 1.5, "other_s": 0}
    assert {name: float(row[name]) for name in expected} == expected
    assert row["samples_hash"] == f"{2:016x}" and float(row["memory_gb"]) > 0.01


def test_without_a_count_of_flops_there_is_no_mfu(tmp_path):
    log(tmp_path, 0, range(1, 2))
    assert rows(tmp_path)[0]["mfu"] == ""


@pytest.mark.parametrize(
    ("norm", "shown"), [(torch.tensor(0.5), "0.5"), (None, "nan"), (-1.0, "nan"), (torch.tensor(torch.inf), "inf")]
)
def test_a_norm_that_deepspeed_does_not_know_is_none(norm, shown, tmp_path):
    monitor = made(tmp_path)
    record(monitor, 1, norm=norm)
    monitor.flush()
    monitor.close()
    assert rows(tmp_path)[0]["grad_norm"] == shown


def test_of_several_ranks_losses_are_averaged_counts_and_hashes_added_and_memory_is_the_most(tmp_path, monkeypatch):
    threads = Threads(3)
    monkeypatch.setattr(ranks, "dist", threads)
    monkeypatch.setattr(monitor_module, "Clock", Laps)
    monkeypatch.setattr(monitor_module, "memory_bytes", lambda _: (1 + ranks.rank()) * 1e9)
    hashes = [2**64 - 1, 2**63 + 5, 2**40 + 7]

    def work(rank: int) -> None:
        monitor = made(tmp_path, flops=lambda _: 1e9)
        own = replace_hash(chunk(1), hashes[rank])
        monitor.record(1, [own], 0.1, Update({"itc": torch.tensor(float(rank))}, True, 4.0))
        monitor.flush()
        monitor.close()

    threads.run(work)
    (row,) = rows(tmp_path)
    assert row["samples_hash"] == f"{sum(hashes) % 2**64:016x}"
    expected = {"captions/itc": 1, "samples_per_s": 12, "memory_gb": 3, "step_s": 2, "mfu": 0.5, "grad_norm": 4}
    assert {name: float(row[name]) for name in expected} == pytest.approx(expected)
    assert threads.calls == 3  # one collective


def test_too_many_faults_on_one_rank_end_the_run_on_all_in_the_collective_that_logs(tmp_path, monkeypatch):
    threads = Threads(3)
    monkeypatch.setattr(ranks, "dist", threads)

    def work(rank: int) -> str:
        monitor = made(tmp_path)
        for step in (1, 3):
            own = chunk(step)
            own.left_out = [6 * (rank == 1), 0, rank, 0, 0]
            monitor.record(step, [own], 0.1, Update({"itc": torch.tensor(1.0)}, True, 4.0))
        with pytest.raises(UserError) as caught:
            monitor.flush()
        monitor.close()
        return f"{type(caught.value).__name__} {caught.value} {monitor.left_out}"

    found = threads.run(work)
    assert all("12 of 60 records read on all ranks are faulty (20.00%), at most 1.00%" in said for said in found)
    assert [said.split()[0] for said in found] == ["UserError", "ToldByFirstRank", "ToldByFirstRank"]
    assert all(said.endswith("faults 12, cut_captions 6") for said in found)
    assert threads.calls == 3 and len(rows(tmp_path)) == 2


def replace_hash(batch: SimpleNamespace, value: int) -> SimpleNamespace:
    return SimpleNamespace(**vars(batch) | {"samples_hash": value})


def test_a_resumed_run_goes_on_after_its_checkpoint(tmp_path):
    log(tmp_path, 0, range(1, 7))
    log(tmp_path, 4, range(5, 8))
    assert [row["step"] for row in rows(tmp_path)] == [str(step) for step in range(1, 8)]


def test_nothing_is_read_back_before_a_flush(tmp_path):
    monitor = made(tmp_path)
    record(monitor, 1)
    assert rows(tmp_path) == []
    monitor.flush()
    monitor.flush()  # of nothing
    assert len(rows(tmp_path)) == 1
    monitor.close()


def test_closing_after_a_failure_writes_nothing_more(tmp_path):
    """Averaging is a collective: one rank that fails must not start it alone."""
    monitor = made(tmp_path)
    record(monitor, 1)
    monitor.close()
    assert rows(tmp_path) == []


def test_a_log_that_cannot_be_written_ends_no_training(tmp_path, monkeypatch, caplog):
    monitor = made(tmp_path)
    whole = (tmp_path / "metrics.csv").stat().st_size

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for step in (1, 2, 3):
        with monkeypatch.context() as broken:
            if step < 3:
                broken.setattr(metrics_csv, "_write_all", full)
            record(monitor, step)
            monitor.flush()
        if step < 3:
            assert (tmp_path / "metrics.csv").stat().st_size == whole
    monitor.close()
    assert [row["step"] for row in rows(tmp_path)] == ["3"]
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 2 and "metrics.csv: 2 rows could not be written" in warnings[1]
    assert warnings[0].startswith(f"{tmp_path / 'metrics.csv'}: cannot be written: [Errno 28] No space left on device")


class Gone(ModuleType):
    """A service that cannot be reached, from its start on or later."""

    def __init__(self, at_start: bool) -> None:
        super().__init__("wandb")
        self.at_start = at_start

    def init(self, **options: object) -> None:
        if self.at_start:
            raise ConnectionError("nobody there")

    def log(self, values: dict, step: int) -> None:
        raise ValueError("no such\nthing")

    def finish(self) -> None:
        raise SystemError("odd")


@pytest.mark.parametrize(("at_start", "said"), [(True, "nobody there"), (False, "ValueError: no such")])
def test_a_service_that_fails_ends_no_training_and_its_rows_are_counted(at_start, said, tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "wandb", Gone(at_start))
    log(tmp_path, 0, range(1, 4), replace(CONFIG, loggers=["wandb"]))
    assert len(rows(tmp_path)) == 3
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 2 and said in warnings[0] and "goes on" in warnings[0]
    assert warnings[1] == f"{tmp_path / 'wandb'}: 3 rows could not be written"


def test_a_board_that_cannot_be_written_ends_no_training_either(tmp_path):
    """With a limit on the size of files, in a process of its own."""
    script = (
        "import resource, sys; sys.path.insert(0, sys.argv[1])\n"
        "import test_monitor as here; from pathlib import Path\n"
        "config = here.replace(here.CONFIG, steps=400)\n"
        "monitor = here.made(Path(sys.argv[2]), 0, config)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
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


def test_a_step_that_is_skipped_or_a_spike_is_marked(tmp_path, caplog):
    monitor = made(tmp_path, config=replace(CONFIG, spikes=SpikesConfig(window=8)))
    for step, loss in enumerate([1.0] * 8 + [9.0, 1.0, float("nan")], 1):
        values = {"mrc": torch.tensor(loss), "mrc_accuracy": torch.tensor(100.0)}
        monitor.record(step, [chunk(2)], 0.1, Update(values, loss == loss, 1.0), skipped_so_far=int(loss != loss))
    monitor.flush()
    monitor.close()
    found = rows(tmp_path)
    assert [row["step"] for row in found if row["spike"] == "1"] == ["9"]
    assert [row["step"] for row in found if row["skipped"] == row["skipped_so_far"] == "1"] == ["11"]
    assert "step 9: spike: the losses of mrc come to 9; 1 in a row" in caplog.text
