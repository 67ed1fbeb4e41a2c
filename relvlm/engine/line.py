"""What rank 0 says of a run: one readable line for the steps since the last, and on a terminal a slim bar below it."""

from __future__ import annotations

import logging
import math
import sys
from collections import defaultdict
from statistics import fmean
from typing import TextIO

from tqdm import tqdm

from relvlm.engine.columns import HEAD
from relvlm.engine.metrics_csv import Row

log = logging.getLogger(__name__)
BAR = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}"


class Line:
    """In the log, or above the bar where `stream` is a terminal."""

    def __init__(
        self, name: str, steps: int, start_step: int, columns: list[str], stream: TextIO | None = None
    ) -> None:
        self.name, self.steps, self.stream = name, steps, stream or sys.stderr
        self.columns = [name for name in columns if name not in HEAD and not name.endswith("_accuracy")]
        self.seconds: list[float] = []  # of recent windows' steps, on average
        shown = self.stream.isatty()
        self.bar = tqdm(
            total=steps, initial=start_step, desc=name, bar_format=BAR, file=self.stream, leave=False, disable=not shown
        )

    def write(self, rows: list[Row]) -> None:
        """Of at least one row."""
        self.seconds = [*self.seconds[-9:], fmean(row["step_s"] for row in rows)]
        line = window_line(rows, self.columns, self.name, self.steps, fmean(self.seconds))
        if self.bar.disable:
            log.info("%s", line)
        else:
            self.bar.write(line, file=self.stream)
            self.bar.update(len(rows))

    def close(self) -> None:
        self.bar.close()


def window_line(rows: list[Row], columns: list[str], name: str, steps: int, seconds: float) -> str:
    """`step 1,200/3,400 35% | mini | captions itc 2.19 itm .63 | 894 img/s 12.1k tok/s | data 3% | ... | 4:22 left`.

    `columns` are those of the losses, in their order; `seconds` a step will take from here on.
    """
    last, took = rows[-1], sum(row["step_s"] for row in rows)
    images, tokens = (
        sum(row[f"{what}_per_s"] * row["step_s"] for row in rows) / took for what in ("samples", "tokens")
    )
    norms = [row["grad_norm"] for row in rows if math.isfinite(row["grad_norm"])]
    parts = [
        f"step {last['step']:,}/{steps:,} {last['step'] / steps:.0%}",
        name,
        *losses(rows, columns),
        f"{short(images)} img/s {short(tokens)} tok/s",
        f"data {sum(row['data_s'] for row in rows) / took:.0%}",
        f"grad {short(fmean(norms)) if norms else 'nan'}",
        f"lr {exponent(last['lr'])}",
        *([f"mfu {last['mfu']:.0%}"] if last["mfu"] is not None else []),
        *([f"skipped {last['skipped_so_far']}"] if last["skipped_so_far"] else []),
        f"{duration((steps - last['step']) * seconds)} left",
    ]
    return " | ".join(parts)


def losses(rows: list[Row], columns: list[str]) -> list[str]:
    """`captions itc 2.19 itm .63` for each kind of step that there was; means of what is finite."""
    found: dict[str, list[str]] = defaultdict(list)
    for column in columns:
        kind, _, objective = column.rpartition("/")
        values = [row[column] for row in rows if column in row]
        if values:
            found[kind.replace("/", " ")].append(f"{objective} {short(_mean(values))}")
    return [" ".join([kind, *parts]) for kind, parts in found.items()]


def _mean(values: list[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return fmean(finite) if finite else math.nan


def short(value: float) -> str:
    """Three digits or so: `.63`, `2.19`, `894`, `12.1k`, `3.4M`."""
    if not math.isfinite(value):
        return str(value)
    divisor, unit = (1, "") if abs(value) < 1e3 else (1e3, "k") if abs(value) < 1e6 else (1e6, "M")
    value /= divisor
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:.{digits}f}".replace("0.", ".", abs(value) < 1) + unit


def exponent(value: float) -> str:
    """`1.9e-3`."""
    mantissa, _, power = f"{value:.1e}".partition("e")
    return f"{mantissa}e{int(power)}" if value else "0"


def duration(seconds: float) -> str:
    """`4:22`, `3:04:22`, `2 d 3:04:22`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    day = f"{days} d " if days else ""
    return f"{day}{hours}:{minutes:02}:{rest:02}" if hours or days else f"{minutes}:{rest:02}"
