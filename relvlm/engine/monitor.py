"""What a run says of itself: progress bar, CSV and TensorBoard. Scalars are read back late, in one go.

A log that cannot be written any more (a full disk, a quota) does not end a training: it says so once, and counts.
"""

from __future__ import annotations

import csv
import dataclasses
import errno
import io
import logging
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from relvlm import storage
from relvlm.config.schema import Config, DataConfig
from relvlm.engine.trouble import Spikes
from relvlm.kinds import KINDS
from relvlm.ranks import mean_over_ranks, rank

log = logging.getLogger(__name__)


def objectives(data: DataConfig) -> list[str]:
    """Names of all values that a run of this data logs: KIND/OBJECTIVE, or joint/KIND/OBJECTIVE."""
    weights = dataclasses.asdict(data.joint_weights)
    known: dict[str, list[str]] = {kind: row.values for kind, row in KINDS.items()}
    known["joint"] = [f"{kind}/{name}" for kind, names in known.items() if weights[kind] for name in names]
    return [f"{kind}/{name}" for kind in known if kind in data.drawn for name in known[kind]]


def _write_all(file: io.RawIOBase, data: bytes) -> None:
    """A disk that is nearly full takes a part and says how much."""
    if (file.write(data) or 0) < len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _quiet(args: threading.ExceptHookArgs, loud: Callable[..., Any] = threading.excepthook) -> None:
    """TensorBoard's thread hands its failure on, and needs no traceback beside our line."""
    if type(args.thread).__name__ != "_AsyncWriterThread" or not isinstance(args.exc_value, OSError):
        loud(args)


class Monitor:
    """One CSV row a step (`metrics.csv`); `KIND/OBJECTIVE` columns are blank where a step has no such loss."""

    def __init__(self, config: Config, folder: Path, start_step: int, spiking: int = 0) -> None:
        self.pending: list[tuple[int, str, str, float, int, bool, dict[str, Tensor]]] = []
        self.folder, self.path = folder, folder / "metrics.csv"
        self.lost: Counter[str] = Counter()  # rows that could not be written, by log
        self.values = objectives(config.data)
        self.columns = ["step", "dataset", "lr", "samples_per_s", "skipped", "spike", *self.values]
        self.spikes = Spikes(config.spikes, spiking)
        self.last_flush = time.perf_counter()
        if rank() == 0:
            self._open_csv(start_step)
            threading.excepthook = _quiet
            with storage.writing(folder / "tensorboard"):
                self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=start_step + 1)
            interval = 0.1 if sys.stderr.isatty() else 10.0  # a log file needs no 10 lines a second
            self.bar = tqdm(total=config.steps, initial=start_step, desc=config.name, unit="step", mininterval=interval)

    def record(
        self,
        step: int,
        kind: str,
        dataset: str,
        lr: float,
        samples: int,
        values: dict[str, Tensor],
        skipped: bool = False,
    ) -> None:
        """Remember one step's scalars (still on the device); `samples` counts all ranks' images."""
        self.pending.append((step, kind, dataset, lr, samples, skipped, values))

    def flush(self) -> None:
        """Average the pending scalars over ranks, in one collective, and write them. Every rank must call it."""
        if not self.pending:
            return
        stacked = torch.stack([v.float() for *_, values in self.pending for v in values.values()])
        numbers = iter(mean_over_ranks(stacked).tolist())
        now = time.perf_counter()
        rate = sum(samples for *_, samples, _, _ in self.pending) / (now - self.last_flush)
        self.last_flush = now
        rows = [
            {"step": step, "dataset": dataset, "lr": f"{lr:.6g}", "samples_per_s": f"{rate:.1f}"}
            | {"skipped": int(skipped)}
            | self._with_spike(step, kind, {f"{kind}/{name}": next(numbers) for name in values})
            for step, kind, dataset, lr, _, skipped, values in self.pending
        ]
        self.pending.clear()
        if rank() == 0:
            self._write(rows, rate)

    def _with_spike(self, step: int, kind: str, values: dict[str, float]) -> dict[str, Any]:
        """Every rank counts the same numbers."""
        loss = sum(value for name, value in values.items() if not name.endswith("_accuracy"))
        spike = self.spikes.count(kind, loss)
        if spike and rank() == 0:
            row = self.spikes.in_a_row
            log.warning("step %d: spike: the losses of %s come to %.4g; %d in a row", step, kind, loss, row)
        return {"spike": int(spike)} | values

    def close(self) -> None:
        """Close the files. What is pending is lost: averaging it would make a rank that fails wait for the others."""
        if rank() == 0:
            self.bar.close()
            self._try(self.board.close, "tensorboard", 0)
            for name, count in self.lost.items():
                log.warning("%s: %d rows could not be written", self.folder / name, count)

    def _try(self, write: Callable[[], None], name: str, rows: int) -> None:
        """Write `rows` rows to the log of that name, or count them as lost."""
        try:
            write()
        except OSError as error:
            if name not in self.lost:
                log.warning("%s (training goes on without these rows)", storage.disk_error(self.folder / name, error))
            self.lost[name] += rows

    def _open_csv(self, start_step: int) -> None:
        """Start the file anew, keeping the whole rows up to `start_step` of a run that is resumed."""
        kept: list[dict[str, str]] = []
        if start_step and self.path.exists():
            with self.path.open(newline="") as file:
                whole = (row for row in csv.DictReader(file) if None not in row.values())
                kept = [row for row in whole if int(row["step"]) <= start_step]
        temporary = self.path.with_suffix(".tmp")
        with storage.writing(self.path):
            with temporary.open("w", newline="") as file:
                writer = csv.DictWriter(file, self.columns, restval="", extrasaction="ignore")
                writer.writeheader()
                writer.writerows(kept)
            temporary.replace(self.path)

    def _write(self, rows: list[dict[str, Any]], rate: float) -> None:
        self._try(lambda: self._append(rows), "metrics.csv", len(rows))
        self._try(lambda: self._plot(rows, rate), "tensorboard", len(rows))
        shown = {name: f"{row[name]:.3f}" for row in rows for name in self.values if name in row}
        self.bar.set_postfix({"samples/s": f"{rate:.0f}"} | shown, refresh=False)
        self.bar.update(len(rows))

    def _append(self, rows: list[dict[str, Any]]) -> None:
        """All rows, or none: half a row would spoil the next."""
        text = io.StringIO(newline="")
        csv.DictWriter(text, self.columns, restval="").writerows(rows)
        with self.path.open("ab", buffering=0) as file:
            end = file.tell()
            try:
                _write_all(file, text.getvalue().encode())
            except OSError:
                file.truncate(end)
                raise

    def _plot(self, rows: list[dict[str, Any]], rate: float) -> None:
        for row in rows:
            for name in self.values:
                if name in row:
                    self.board.add_scalar(name, row[name], row["step"])
        self.board.add_scalar("samples_per_s", rate, rows[-1]["step"])
