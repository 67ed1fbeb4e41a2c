"""Every checkpoint of a run on every task: restartable, and in shards for a job array.

A result is done when its metrics.json says that it was made from the same checkpoint, annotations and options, by
their content.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import relvlm
from relvlm import storage
from relvlm.errors import UserError
from relvlm.evals.evaluate import Source, fitting, score_source
from relvlm.evals.files import Row, read_object
from relvlm.evals.scoring.scorer import ScoreOptions, Scorer
from relvlm.ranks import on_first_rank, rank, world_size

log = logging.getLogger(__name__)

RESULTS = "checkpoints_eval"  # in the run's folder
MODEL_FILES = ("model.safetensors", "config.json", "vocab.txt")
NOT_RESULTS = ("device", "image_batch", "token_budget", "decode_threads", "memory_gb", "cache")


@dataclass(frozen=True)
class Progress:
    """One checkpoint: the sources that are still to be scored, and those that are done."""

    checkpoint: Path
    todo: tuple[Source, ...]
    done: tuple[Source, ...]


def checkpoints_of(run: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first; UserError where there is none."""
    folder = run / "checkpoints" if (run / "checkpoints").is_dir() else run
    found = sorted(path for path in folder.glob("step_*") if (path / "config.json").is_file())
    if not found:
        raise UserError(f"{run}: no checkpoints/step_* in it (give the folder of a run)")
    return found


def shard_of(checkpoints: Sequence[Path], shard: str) -> list[Path]:
    """Those of shard `i/n`, i from 0; UserError for another spelling."""
    index, _, count = shard.partition("/")
    if not (index.isdigit() and count.isdigit() and int(index) < int(count)):
        raise UserError(f"--shard: {shard!r}: not i/n with 0 <= i < n")
    return list(checkpoints[int(index) :: int(count)])


def progress(checkpoint: Path, sources: Sequence[Source], out: Path, options: ScoreOptions) -> Progress:
    """What of `sources` is still to be scored for a checkpoint, whose results lie in `out`/<checkpoint's name>."""
    done = [s for s in sources if _is_done(out / checkpoint.name / s.name, _made_from(checkpoint, s, options))]
    return Progress(checkpoint, tuple(s for s in sources if s not in done), tuple(done))


def evaluate_checkpoints(
    checkpoints: Sequence[Path], sources: Sequence[Source], out: Path, options: ScoreOptions
) -> list[Progress]:
    """Score what is not done; a checkpoint that fails does not stop the others, all failures are one UserError.

    What a checkpoint lacks a head for is left out, and is not among what its Progress says was to do.
    """
    found = on_first_rank(lambda: [progress(checkpoint, sources, out, options) for checkpoint in checkpoints])
    failures = []
    for i, each in enumerate(found):
        try:
            found[i] = replace(each, todo=tuple(_evaluate(each, out / each.checkpoint.name, options)))
        except UserError as error:
            if world_size() > 1:
                raise  # the other processes may not have failed with this one
            log.error("%s: %s", each.checkpoint.name, error)
            failures.append(f"{each.checkpoint.name}: {error}")
    if failures:
        raise UserError(f"{len(failures)} of {len(found)} checkpoints failed:\n" + "\n".join(failures))
    return found


def _evaluate(each: Progress, out: Path, options: ScoreOptions) -> list[Source]:
    """What was scored."""
    if not each.todo:
        log.info("%s: all done", each.checkpoint.name)
        return []
    scorer = Scorer(relvlm.load(each.checkpoint), None, options)
    scored = fitting(scorer, each.todo)
    for source in scored:
        result = score_source(scorer, source, out / source.name, _made_from(each.checkpoint, source, options))
        if rank() == 0:
            log.info("%s: %s %.1f", each.checkpoint.name, source.name, result["overall"])
    return scored


def _is_done(folder: Path, made_from: Row) -> bool:
    try:
        result = read_object(folder / "metrics.json")
    except UserError:  # absent, or damaged
        return False
    return (folder / "scores.jsonl").is_file() and result.get("made_from") == made_from


def _made_from(checkpoint: Path, source: Source, options: ScoreOptions) -> Row:
    """What decides a result, by content."""
    settings = {k: v for k, v in dataclasses.asdict(options).items() if k not in NOT_RESULTS}
    selection = dataclasses.asdict(source.selection)
    selection["overlap"] = list(selection["overlap"])
    return {
        "checkpoint": _digest([checkpoint / name for name in MODEL_FILES]),
        "annotations": _digest(_files(source.annotations)),
        "images": str(source.images),
        "options": settings,
        "selection": selection,
    }


def _files(path: Path) -> list[Path]:
    return storage.files_below(path) if path.is_dir() else [path]


def _digest(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.name}\n".encode())
        try:
            status = path.stat()
            digest.update(_content(path, status.st_mtime_ns, status.st_size))
        except OSError as error:
            raise UserError(f"{path}: {error.strerror} (is the checkpoint complete?)") from error
    return digest.hexdigest()


@lru_cache(maxsize=1024)
def _content(path: Path, changed: int, size: int) -> bytes:
    """Read once, but anew where the file was written anew: a soup has the place of the last one, a step made again."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
