"""Saves beside training: the state is copied, then written by a thread of each rank while the next steps are made.

All ranks agree on each save in a process group of their own, so that a slow disk holds up no collective of the
training. A save that fails is tried again; a run ends only after several in a row, or at its end.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from relvlm import checkpoints, storage
from relvlm.config.schema import CheckpointConfig, Config
from relvlm.engine import judging, run_state
from relvlm.errors import UserError
from relvlm.ranks import gather_objects, new_group, rank

log = logging.getLogger(__name__)

PAUSES_S = (5.0, 30.0)  # before a failed save is tried again
CLOSE_S = 60.0  # how long a run that fails lets a save go on
TIMEOUT = timedelta(minutes=60)  # for the slowest rank's files


class Saver:
    """Of one run, on every rank; made and used by all of them together. `last` is its newest whole checkpoint."""

    def __init__(self, folder: Path, config: Config, last: Path) -> None:
        self.folder, self.config, self.last = folder, config, last
        self._group = new_group(TIMEOUT)
        self._thread: threading.Thread | None = None
        self._failures: list[Exception] = []

    def save(self, engine: Any, progress: run_state.Progress) -> None:
        """Copy the state after a step and begin to write it; the save before is waited for (see `wait`)."""
        self.wait(self.config.checkpoint.max_failed)
        made, name = run_state.snapshot(engine, progress), f"save of step {progress.step}"
        self._thread = threading.Thread(target=self._run, args=(made,), daemon=True, name=name)
        self._thread.start()

    def wait(self, most: int = 0) -> Path:
        """Wait for the save that is going on and return the newest checkpoint.

        Raises what the last save failed of, where more than `most` in a row did.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if len(self._failures) > most:
            raise self._failures[-1]
        return self.last

    def close(self) -> None:
        """Let the save that is going on end, whatever else has failed; another rank may be gone."""
        if self._thread is not None:
            self._thread.join(CLOSE_S)

    def _run(self, made: run_state.Snapshot) -> None:
        began = time.perf_counter()
        try:
            self._attempts(made)
        except Exception as error:  # of the group itself: another rank is gone
            self._failures.append(error)
            return
        if rank() == 0 and not self._failures:
            log.info("saved %s in %.1f s", self.last, time.perf_counter() - began)

    def _attempts(self, made: run_state.Snapshot) -> None:
        error = self._attempt(made)
        for pause in PAUSES_S:
            if error is not None:
                _warn("%s (tried again in %.0f s)", error, pause)
                time.sleep(pause)
                error = self._attempt(made)
        if error is None:
            self._failures.clear()
            self.last = self.folder / checkpoints.name_of(made.progress.step)
        else:
            self._failures.append(error)
            _warn("%s (%d saves in a row have failed; training goes on)", error, len(self._failures))

    def _attempt(self, made: run_state.Snapshot) -> Exception | None:
        """Write one checkpoint with all ranks; on each of them the first rank's failure, if one failed."""
        temporary = self.folder / f".{checkpoints.name_of(made.progress.step)}.tmp"
        steps = [
            lambda files: _start(temporary),
            lambda files: run_state.write(made, temporary, self.config),
            lambda files: self._commit(temporary, made, {k: v for each in files for k, v in each.items()}),
        ]
        found: list[Any] = []
        for step in steps:
            found = gather_objects(self._outcome(step, found, made), self._group)
            error = next((each for each in found if isinstance(each, Exception)), None)
            if error is not None:
                if rank() == 0:
                    shutil.rmtree(temporary, ignore_errors=True)
                return error
        return None

    def _outcome(self, step: Any, found: list[Any], made: run_state.Snapshot) -> Any:
        """What a part of the save gives, or its failure."""
        try:
            with storage.writing(self.folder / checkpoints.name_of(made.progress.step), needed=made.bytes):
                return step(found)
        except UserError as error:
            return error
        except Exception as error:  # as a kind that can travel to the other ranks
            log.debug("a save failed", exc_info=True)
            return RuntimeError(f"{type(error).__name__}: {error}")

    def _commit(self, temporary: Path, made: run_state.Snapshot, files: dict[str, dict[str, Any]]) -> None:
        if rank() == 0:
            final = self.folder / checkpoints.name_of(made.progress.step)
            checkpoints.write_manifest(temporary, files)
            if final.exists():  # of a run that has gone back to before it
                shutil.rmtree(final)
            temporary.rename(final)
            storage.sync_one(self.folder)
            storage.write_whole(self.folder / checkpoints.LATEST, final.name)
            prune(self.folder, made.progress.step, self.config.checkpoint)


def _start(temporary: Path) -> None:
    if rank() == 0:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)


def _warn(message: str, *words: object) -> None:
    if rank() == 0:
        log.warning(message, *words)


def clear(folder: Path) -> None:
    """Remove what saves that did not end have left of themselves; only the one run of the folder may."""
    for left in [*folder.glob(".step_*.tmp"), *folder.glob(".latest.tmp")]:
        shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)


def prune(folder: Path, newest: int, config: CheckpointConfig) -> None:
    """Remove all but the newest `keep` up to `newest`, each `keep_every` steps', the newest good one and the best."""
    done = [path for path in checkpoints.saved(folder) if checkpoints.step_of(path) <= newest]
    if not config.keep:
        return
    best = judging.best_step(folder.parent)
    good = next((path for path in reversed(done) if is_good(path)), None)
    for old in done[: -config.keep]:
        for_ever = config.keep_every and checkpoints.step_of(old) % config.keep_every == 0
        if not for_ever and old != good and checkpoints.step_of(old) != best:
            remove(old)


def is_good(checkpoint: Path) -> bool:
    """Whether the last step before it was neither skipped nor a spike."""
    progress = run_state.read_progress(checkpoint)
    return not (progress.skipped or progress.spiking)


def remove(checkpoint: Path) -> None:
    """Under a name that `clear` finds: on NFS, files that an evaluation has open stay, which must not end a run."""
    left = checkpoint.with_name(f".{checkpoint.name}.tmp")
    shutil.rmtree(left, ignore_errors=True)
    checkpoint.rename(left)
    shutil.rmtree(left, ignore_errors=True)
