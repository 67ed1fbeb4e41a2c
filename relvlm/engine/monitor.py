"""What a run logs of its steps. Scalars are read back late, in one go, and go to several logs.

A log that cannot be written any more (a full disk, a quota, a service that is gone) does not end a training: it says so
once, and counts.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from relvlm import storage
from relvlm.config.schema import Config
from relvlm.data.batches.batch import Batch
from relvlm.engine.clock import Clock
from relvlm.engine.columns import PHASES, columns
from relvlm.engine.line import Line
from relvlm.engine.loggers import Board, NotStarted, Service
from relvlm.engine.memory import memory_bytes
from relvlm.engine.metrics_csv import MetricsCsv, Row
from relvlm.engine.peak import peak_rate
from relvlm.engine.train_step import Update
from relvlm.engine.trouble import Spikes
from relvlm.ranks import rank, sum_over_ranks, world_size

log = logging.getLogger(__name__)
Flops = Callable[[list[Batch]], float]
HASH_PARTS = 4  # of 16 bits: their sums over ranks are exact in float64


def uncounted(chunks: list[Batch]) -> float:
    """In place of a count of FLOPs: there is no MFU then."""
    return 0.0


class Log(Protocol):
    """Takes rows; what it may raise without ending a run is in `errors`."""

    errors: tuple[type[Exception], ...]

    def write(self, rows: list[Row]) -> None: ...

    def note(self, step: int, figures: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Record:
    """One step of one rank: what is known on the host, and scalars that are on the device yet."""

    step: int
    kind: str
    dataset: str
    lr: float
    skipped_so_far: int
    counts: list[float]  # images, text tokens, FLOPs, the parts of the samples' hash
    update: Update


class Monitor:
    """One row a step; `KIND/OBJECTIVE` columns are blank where a step has no such loss. Its clock runs from now on."""

    def __init__(
        self, config: Config, folder: Path, start_step: int, device: torch.device, flops: Flops, spiking: int = 0
    ) -> None:
        self.pending: list[Record] = []
        self.folder, self.device, self.flops = folder, device, flops
        self.lost: Counter[str] = Counter()  # rows that could not be written, by log
        self.logs: dict[str, Log] = {}
        self.spikes = Spikes(config.spikes, spiking)
        self.peak: float | None = None
        if rank() == 0:
            self.peak = peak_rate(config, device)
            names = columns(config.data)
            self.logs = {
                "metrics.csv": MetricsCsv(folder / "metrics.csv", names, start_step),
                "tensorboard": Board(folder / "tensorboard", start_step),
            }
            for name in dict.fromkeys(config.loggers):
                self.logs[name] = NotStarted()
                self._try(name, Service.errors, partial(self._start, name, config, start_step))
            self.line = Line(config.name, config.steps, start_step, names)
        self.clock = Clock(device)

    def record(self, step: int, chunks: list[Batch], lr: float, update: Update, skipped_so_far: int = 0) -> None:
        """Remember one step, which is over for the clock; its scalars stay on the device."""
        with self.clock.phase("logging"):
            samples = sum(chunk.samples_hash for chunk in chunks)
            counts = [
                sum(chunk.images for chunk in chunks),
                sum(len(chunk.text_ids) for chunk in chunks),
                self.flops(chunks),
                *(float(samples >> 16 * part & 0xFFFF) for part in range(HASH_PARTS)),
            ]
            first = chunks[0]
            self.pending.append(Record(step, first.kind, first.dataset, lr, skipped_so_far, counts, update))
            self.clock.lap()

    def flush(self) -> None:
        """Gather the pending steps of all ranks, in one collective, and write them. Every rank must call it."""
        if not self.pending:
            return
        with self.clock.phase("logging"):
            records, self.pending = self.pending, []
            numbers = self._gathered(records)
            memory = max(next(numbers) for _ in range(world_size())) / 1e9
            rows = [self._row(record, numbers) | {"memory_gb": memory} for record in records]
            if rank() == 0:
                for name, each in self.logs.items():
                    self._try(name, each.errors, partial(each.write, rows), len(rows))
                self.line.write(rows)

    def note(self, step: int, figures: Mapping[str, float]) -> None:
        """Figures of an evaluation, as `eval/NAME` where a log has scalars; rank 0 alone."""
        for name, each in self.logs.items():
            self._try(name, each.errors, partial(each.note, step, figures))

    def close(self) -> None:
        """Close the logs. What is pending is lost: averaging it would make a rank that fails wait for the others."""
        if rank() == 0:
            self.line.close()
            for name, each in self.logs.items():
                self._try(name, each.errors, each.close)
            for name, count in (+self.lost).items():
                log.warning("%s: %d rows could not be written", self.folder / name, count)

    def _start(self, name: str, config: Config, start_step: int) -> None:
        self.logs[name] = Service(name, config, self.folder, start_step)

    def _gathered(self, records: list[Record]) -> Iterator[float]:
        """Sums over ranks: the bytes of each one's memory, then of each record what `_row` takes."""
        memory = [0.0] * world_size()
        memory[rank()] = float(memory_bytes(self.device))
        seconds = self.clock.read()
        host = [memory, *([*each.counts, *lap.values()] for each, lap in zip(records, seconds, strict=True))]
        scalars = [
            *(
                x
                for each in records
                for x in (*each.update.values.values(), _scalar(each.update.grad_norm, self.device))
            )
        ]
        known = torch.tensor([x for part in host for x in part], dtype=torch.float64, device=self.device)
        found = iter(sum_over_ranks(torch.cat([known, torch.stack([x.double() for x in scalars])])).tolist())
        yield from (next(found) for _ in memory)
        counts = [[next(found) for _ in part] for part in host[1:]]
        for each, part in zip(records, counts, strict=True):
            yield from (*part, *(next(found) for _ in (*each.update.values, "grad_norm")))

    def _row(self, record: Record, numbers: Iterator[float]) -> Row:
        world = world_size()
        images, tokens, flops = (next(numbers) for _ in range(3))
        samples = sum(int(next(numbers)) << 16 * part for part in range(HASH_PARTS)) % 2**64
        seconds = {f"{phase}_s": next(numbers) / world for phase in PHASES}
        took = sum(seconds.values())
        losses = {f"{record.kind}/{name}": next(numbers) / world for name in record.update.values}
        norm = next(numbers) / world
        return {
            "step": record.step,
            "dataset": record.dataset,
            "samples_hash": f"{samples:016x}",
            "lr": record.lr,
            "skipped": int(not record.update.stepped),
            "skipped_so_far": record.skipped_so_far,
            "spike": int(self._is_spike(record, losses)),
            "grad_norm": norm if norm >= 0 else float("nan"),
            "samples_per_s": images / took,
            "tokens_per_s": tokens / took,
            "mfu": flops / (took * world * self.peak) if flops and self.peak else None,
            "step_s": took,
            **seconds,
            **losses,
        }

    def _is_spike(self, record: Record, losses: dict[str, float]) -> bool:
        """Every rank counts the same numbers."""
        loss = sum(value for name, value in losses.items() if not name.endswith("_accuracy"))
        spike = self.spikes.count(record.kind, loss)
        if spike and rank() == 0:
            row = self.spikes.in_a_row
            log.warning(
                "step %d: spike: the losses of %s come to %.4g; %d in a row", record.step, record.kind, loss, row
            )
        return spike

    def _try(self, name: str, errors: tuple[type[Exception], ...], write: Callable[[], None], rows: int = 0) -> None:
        """Write `rows` rows to the log of that name, or count them as lost."""
        try:
            write()
        except errors as error:
            if name not in self.lost:
                where = self.folder / name
                what = storage.disk_error(where, error) if isinstance(error, OSError) else f"{name}: {_brief(error)}"
                log.warning("%s (training goes on without these rows)", what)
            self.lost[name] += rows


def _scalar(value: Any, device: torch.device) -> Tensor:
    """What DeepSpeed gives as a norm: a tensor, a number, or none."""
    return torch.as_tensor(float("nan") if value is None else value, device=device).reshape(())


def _brief(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
