"""Going back after too many bad steps: to the last good checkpoint, and past the data that was drawn since.

Samples are a function of the seed and a position. `Progress.data_offset` is how far that is ahead of the step, so the
steps after a good checkpoint are made anew, of other samples. `out/rollback.json` holds the last such start until a
checkpoint holds it: a run that dies in between does not meet the same samples again, nor goes back more often than it
may.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from dataclasses import replace
from pathlib import Path

from relvlm import checkpoints, storage
from relvlm.engine.run_state import Progress, read_progress
from relvlm.engine.saver import is_good, remove
from relvlm.engine.trouble import TooManyBadSteps
from relvlm.errors import UserError

FILE = "rollback.json"
log = logging.getLogger(__name__)


def go_back(out: Path, found: TooManyBadSteps, most: int) -> Path:
    """The good checkpoint to go on from, those after it being removed; rank 0 alone, while nothing is being saved.

    Raises UserError, with the diagnosis, where there is none, or after `most` times.
    """
    bad = found.progress
    if bad.rollbacks >= most:
        raise UserError(f"{found} (the run has gone back {bad.rollbacks} times; max_rollbacks)")
    good = _newest_good(out / "checkpoints")
    if good is None:
        raise UserError(f"{found} (there is no good checkpoint to go back to)")
    before = read_progress(good)
    start = replace(
        before,
        data_offset=bad.data_offset + bad.step - before.step,
        rollbacks=bad.rollbacks + 1,
        skipped_in_all=bad.skipped_in_all,
    )
    log.warning(
        "%s. Goes back to %s and past the data of %d steps (%d of at most %d times)",
        found, good, bad.step - before.step, start.rollbacks, most,
    )  # fmt: skip
    _keep_rows(out, before.step, start.rollbacks)
    storage.write_whole(out / FILE, json.dumps(dataclasses.asdict(start)))
    remove_undone(out)
    return good


def started_from(out: Path, progress: Progress) -> Progress:
    """How far a run is that goes on from a checkpoint of `progress`: what the last rollback says, if that is of it."""
    last = _last(out)
    return last if last and last.step == progress.step and last.rollbacks > progress.rollbacks else progress


def remove_undone(out: Path) -> None:
    """Remove the checkpoints that the last rollback has undone; also at a start, as a run may die amid this."""
    last, folder = _last(out), out / "checkpoints"
    if last is None:
        return
    for path in checkpoints.saved(folder):
        if checkpoints.step_of(path) > last.step and _rollbacks(path) < last.rollbacks:
            remove(path)
    if left := checkpoints.saved(folder):
        storage.write_whole(folder / checkpoints.LATEST, left[-1].name)


def forget_if_before(out: Path, newest: Path | None) -> None:
    """Where a run begins before the checkpoint that it last went back to, which is damaged or was removed on purpose:
    it makes that one and the later ones anew, and none of them is undone.
    """
    last = _last(out)
    if last and (newest is None or checkpoints.step_of(newest) < last.step):
        (out / FILE).unlink()


def _newest_good(folder: Path) -> Path | None:
    """Whose files are whole, too."""
    for path in reversed(checkpoints.saved(folder)):
        if checkpoints.fault_of(path) is None and is_good(path):
            return path
    return None


def _rollbacks(checkpoint: Path) -> int:
    """Of one that is damaged, 0: what is left of it may go."""
    try:
        return read_progress(checkpoint).rollbacks
    except UserError:
        return 0


def _last(out: Path) -> Progress | None:
    path = out / FILE
    try:
        return Progress(**json.loads(path.read_text())) if path.exists() else None
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path}: not readable: {error} (without it, the run meets the same samples again)") from error


def _keep_rows(out: Path, step: int, number: int) -> None:
    """The rows of metrics.csv after `step`, which the run will write anew."""
    path, kept = out / "metrics.csv", out / "trouble" / f"rollback_{number}.csv"
    if path.exists():
        header, *rows = path.read_text().splitlines(keepends=True)
        later = [row for row in rows if int(row.split(",")[0]) > step]
        with storage.writing(kept):
            kept.parent.mkdir(exist_ok=True)
            kept.write_text(header + "".join(later))
