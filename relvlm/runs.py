"""`relvlm runs [FOLDER...]`: what runs do, from their folders alone, whatever their age and state."""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from relvlm.checkpoints import name_of, saved, step_of
from relvlm.config import yaml_text
from relvlm.engine import lease, process
from relvlm.engine.ending import read_ending
from relvlm.engine.line import duration
from relvlm.errors import UserError

DEEP = 3  # folders of folders of runs
TAIL = 1 << 16  # bytes of metrics.csv that are read from its end
ROWS = 50  # newest rows that rate and time left are of
HEAD = ("run", "state", "step", "of", "img/s", "left", "checkpoint", "last trouble")


@dataclass(frozen=True)
class Run:
    """None is what the folder does not say. `left_s`: seconds at the pace of the newest steps.

    `state`: running; requeued (saved, and Slurm starts it again) or stopped (saved, to be started again); ended;
    failed; stale (its process is gone, or has given no sign for long); unknown (nothing says whether it ever began).
    """

    folder: str
    name: str | None
    state: str
    step: int | None
    steps: int | None
    samples_per_s: float | None
    left_s: float | None
    checkpoint: str | None
    trouble: str | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "List runs: state, step, images a second, time left, newest checkpoint, last trouble. Nothing is written; "
        "half-written folders are read as far as they go."
    )
    parser.epilog = (
        "states: running; requeued, stopped (saved when told to end); ended; failed; stale (its process is gone, or "
        "has given no sign for long); unknown\nexample: relvlm runs runs/ other/run --json"
    )
    parser.add_argument(
        "folders", nargs="*", type=Path, default=[Path("runs")], metavar="FOLDER",
        help="of a run, or of runs (default: runs)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="a list of objects in place of the table")


def main(args: argparse.Namespace) -> None:
    missing = [folder for folder in args.folders if not folder.is_dir()]
    if missing:
        raise UserError(f"{missing[0]}: no such folder (give the folder of a run, or of runs)")
    if args.json:
        print(json.dumps([asdict(run) for run in runs_below(*args.folders)], indent=1))
    else:
        print("\n".join(lines_below(*args.folders)))


def runs_below(*tops: Path) -> list[Run]:
    """Each once."""
    return [read_run(folder) for folder in dict.fromkeys(run for top in tops for run in run_folders(top))]


def lines_below(*tops: Path) -> list[str]:
    """The table of the runs below these folders, or a line that says that there is none."""
    found = runs_below(*tops)
    return table(found) if found else ["no runs here (a run's folder holds config.yaml)"]


def run_folders(top: Path, deep: int = DEEP) -> Iterator[Path]:
    """The folder itself where it is a run's, or those below it that are, in their order."""
    try:
        if any((top / name).exists() for name in ("config.yaml", "metrics.csv", "lease")):
            yield top
            return
        below = sorted(path for path in top.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError:  # another user's, who keeps it closed
        return
    for path in below if deep else ():
        yield from run_folders(path, deep - 1)


def read_run(folder: Path) -> Run:
    """What is known of a run; never raises."""
    config, rows = _config(folder), last_rows(folder / "metrics.csv")
    step = _number(rows[-1], "step") if rows else None
    steps, newest = _number(config, "steps"), newest_checkpoint(folder)
    reached = max(int(step or 0), newest or 0)
    rates = [x for x in (_number(row, "samples_per_s") for row in rows) if x]
    took = [x for x in (_number(row, "step_s") for row in rows) if x]
    state = state_of(folder, bool(steps) and reached >= (steps or 0))
    left = fmean(took) * (steps - reached) if took and steps and state == "running" else None
    name = config.get("name")
    return Run(
        folder=str(folder),
        name=str(name) if name is not None else None,
        state=state,
        step=reached if step is not None or newest is not None else None,
        steps=int(steps) if steps is not None else None,
        samples_per_s=fmean(rates) if rates else None,
        left_s=left,
        checkpoint=name_of(newest) if newest is not None else None,
        trouble=trouble_of(folder, rows),
    )


def state_of(folder: Path, done: bool) -> str:
    """One word; `done`: its last step has been reached."""
    entry, ending = _newest_lease(folder), read_ending(folder)
    holder = lease.read_holder(entry.path) if entry else None
    if entry and not entry.released:
        return "running" if _gives_signs(entry, holder) else "ended" if done else "stale"
    if ending and ending.how == "stopped":
        return "requeued" if holder and holder.job else "stopped"
    if ending:
        return ending.how
    if done:
        return "ended"
    return "stopped" if entry else "unknown"


def _newest_lease(folder: Path) -> lease.Entry | None:
    try:
        return lease.newest(folder / "lease")
    except OSError:
        return None


def _gives_signs(entry: lease.Entry, holder: lease.Holder | None) -> bool:
    """Seen to live on this host; elsewhere, a beat within STALE_S by both hosts' clocks."""
    try:
        alive = process.is_alive(holder.process) if holder else None
    except (TypeError, ValueError, OSError):  # a file of odd values
        alive = None
    return alive if alive is not None else time.time() - entry.beat / 1e9 < lease.STALE_S


def trouble_of(folder: Path, rows: list[dict[str, str]]) -> str | None:
    """Why it failed, the last cause that its watchdog has found, or how many steps it skipped."""
    ending = read_ending(folder)
    if ending and ending.how == "failed":
        return str(ending.reason)
    if cause := _last_cause(folder):
        return cause
    skipped = _number(rows[-1], "skipped_so_far") if rows else None
    return f"{skipped:.0f} steps skipped" if skipped else None


def _last_cause(folder: Path) -> str:
    """The first line of the newest trouble/NUMBER/cause.txt; empty where there is none."""
    try:
        paths = sorted((folder / "trouble").glob("*/cause.txt"))
        return paths[-1].read_text(errors="replace").partition("\n")[0] if paths else ""
    except OSError:
        return ""


def newest_checkpoint(folder: Path) -> int | None:
    """The step of the newest that was finished, by its folder's name."""
    try:
        return max(map(step_of, saved(folder / "checkpoints")), default=None)
    except OSError:
        return None


def last_rows(path: Path) -> list[dict[str, str]]:
    """The newest whole rows of a metrics.csv, ROWS at most."""
    try:
        with path.open("rb") as file:
            header = file.readline()
            start = max(file.tell(), os.fstat(file.fileno()).st_size - TAIL)
            file.seek(start)
            lines = file.read().decode(errors="replace").splitlines(keepends=True)
        if start > len(header):
            lines = lines[1:]  # it begins anywhere
        whole = "".join(line for line in lines[-ROWS:] if line.endswith("\n"))
        reader = csv.DictReader(io.StringIO(header.decode(errors="replace") + whole, newline=""))
        return [row for row in reader if None not in row and None not in row.values()]
    except (OSError, csv.Error):
        return []


def table(runs: list[Run]) -> list[str]:
    """Lines of a header and one for each run, in columns."""
    cells = [HEAD, *(_cells(run) for run in runs)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(HEAD))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def _cells(run: Run) -> tuple[str, ...]:
    rate = f"{run.samples_per_s:.0f}" if run.samples_per_s is not None else ""
    left = duration(run.left_s) if run.left_s is not None else ""
    step, steps = (f"{count:,}" if count is not None else "" for count in (run.step, run.steps))
    trouble = (run.trouble or "")[:100]
    return run.folder, run.state, step, steps, rate, left, run.checkpoint or "", trouble


def _config(folder: Path) -> dict[str, Any]:
    try:
        found = yaml_text.read((folder / "config.yaml").read_bytes())
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def _number(values: dict[str, Any], name: str) -> float | None:
    """A finite number, from a config or a row."""
    try:
        value = float(values.get(name))  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return value if abs(value) < 1e15 else None  # neither NaN nor infinite
