"""`relvlm compare RUN RUN`: whether two runs logged the same, and where they first differ if not."""

from __future__ import annotations

import argparse
import csv
import math
from dataclasses import dataclass
from pathlib import Path

from relvlm.engine.columns import CLOCKS, WORDS
from relvlm.errors import UserError


@dataclass(frozen=True)
class Log:
    """A run's metrics.csv: its columns but the clocks, and its rows by step."""

    path: Path
    columns: list[str]
    rows: dict[int, dict[str, str]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `relvlm compare`."""
    parser.description = (
        "Compare what two runs logged (metrics.csv), and name the first row and column in which they differ. "
        f"Columns that are clocks are left out: {', '.join(CLOCKS)}."
    )
    parser.epilog = (
        "exit status: 0 where the runs are the same, 1 where they differ, 2 where one cannot be read\n"
        "example: relvlm compare runs/before runs/after --tolerance 1e-6"
    )
    parser.add_argument("runs", nargs=2, type=Path, metavar="RUN", help="folder of a run, or its metrics.csv")
    parser.add_argument(
        "--tolerance",
        type=float,
        default=0.0,
        metavar="T",
        help="numbers may differ by T times the larger of the two (default: not at all)",
    )


def main(args: argparse.Namespace) -> int:
    """Print where the runs differ, or that they are the same; returns the exit status."""
    if not 0 <= args.tolerance < math.inf:
        raise UserError(f"--tolerance: {args.tolerance}: must be a number of at least 0")
    first, second = (read_log(run) for run in args.runs)
    found = difference(first, second, args.tolerance)
    if found:
        print(f"{first.path} and {second.path} differ: {found}")
        return 1
    within = f" within {args.tolerance:g}" if args.tolerance else ""
    print(f"the same{within}: {len(first.rows)} rows, {len(first.columns)} columns (clocks left out)")
    return 0


def read_log(run: Path) -> Log:
    """The log of a run, given by its folder or by the file itself; UserError where it is not one."""
    path = run / "metrics.csv" if run.is_dir() else run
    if not path.is_file():
        raise UserError(f"{path}: no such file (a run writes metrics.csv into its folder `out`)")
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        columns = list(reader.fieldnames or [])
        if "step" not in columns:
            raise UserError(f"{path}: no column 'step': not the metrics.csv of a run")
        rows: dict[int, dict[str, str]] = {}
        for row in reader:
            step = _step(row, f"{path}: line {reader.line_num}")
            if step in rows:
                raise UserError(f"{path}: line {reader.line_num}: step {step} stands there twice")
            rows[step] = row
    return Log(path, [name for name in columns if name not in CLOCKS], rows)


def _step(row: dict[str, str], where: str) -> int:
    """The step of a whole row; UserError where cells are missing, too many or no number."""
    if None in row or None in row.values():
        raise UserError(f"{where}: not as many cells as there are columns")
    if not row["step"].isdecimal():
        raise UserError(f"{where}: step: expected a number, found {row['step']!r}")
    return int(row["step"])


def difference(first: Log, second: Log, tolerance: float) -> str | None:
    """The first difference in words, None where there is none: the columns, then the rows by step."""
    for name in (*first.columns, *second.columns):
        if name not in first.columns or name not in second.columns:
            return f"column {name} is in {(first if name in first.columns else second).path} alone"
    for step in sorted(first.rows | second.rows):
        if step not in first.rows or step not in second.rows:
            return f"step {step} is in {(first if step in first.rows else second).path} alone"
        for name in first.columns:
            one, other = first.rows[step][name], second.rows[step][name]
            if one != other and (name in WORDS or not _close(one, other, tolerance)):
                return f"step {step}, column {name}: {one or 'blank'} and {other or 'blank'}"
    return None


def _close(one: str, other: str, tolerance: float) -> bool:
    """Whether two cells are numbers within the tolerance."""
    try:
        return math.isclose(float(one), float(other), rel_tol=tolerance)
    except ValueError:
        return False
