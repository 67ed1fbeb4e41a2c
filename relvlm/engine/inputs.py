"""What a run reads before its first step, read and checked by the first rank for all of them.

13,000 shards looked at by each of 512 ranks are 7 million requests to one file system.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from relvlm import storage
from relvlm.config.schema import Config
from relvlm.convert.init import check_init
from relvlm.data.batches.loader import open_streams
from relvlm.data.batches.regions import read_relations
from relvlm.data.batches.sampler import Stream
from relvlm.data.shards.store import ShardSet
from relvlm.data.text import Tokenizer
from relvlm.encoders.compiled import check_compiler
from relvlm.engine import resume
from relvlm.engine.judging import Judge
from relvlm.engine.loggers import check_loggers
from relvlm.errors import UserError
from relvlm.pretrained import checkpoint_folder, latest, relations_of
from relvlm.ranks import attempt


@dataclass(frozen=True)
class RunInputs:
    """Size of the vocabulary, names of the relations, shard sets with their streams, and the hashes of them all."""

    vocab_size: int
    relations: list[str]
    streams: list[Stream]
    sets: list[ShardSet]
    hashes: resume.Inputs


def read_inputs(config: Config, judge: Judge | None = None) -> RunInputs:
    """Every shard set opened once; raises UserError with all that is wrong, a line each."""
    checks: list[Callable[[], object]] = [
        lambda: storage.check_folder(Path(config.out), "out"),
        lambda: check_loggers(config.loggers),
        lambda: _check_may_resume(config),
    ]
    if config.model.compile:
        checks.append(check_compiler)
    if judge is not None and config.eval.every:
        checks.append(judge.check)
    if "mrc" in config.data.trained:
        checks.append(lambda: read_relations(config.data.relations_file))
    checks.append(lambda: Tokenizer(config.data.vocab_file))
    later: list[Callable[[], object]] = []
    if latest(Path(config.out) / "checkpoints") is None:
        later = [lambda: check_init(config.init), lambda: check_words(config)]
    opened = attempt(lambda: open_streams(config.data))
    refusals = [*(attempt(check).refusal for check in checks), opened.refusal, *(attempt(c).refusal for c in later)]
    faults = [refusal for refusal in refusals if refusal is not None]
    if faults:
        raise UserError("\n".join(faults))
    words, (streams, sets) = Tokenizer(config.data.vocab_file).vocab_size, cast(Any, opened.result)
    return RunInputs(words, relations_of(config), streams, sets, resume.inputs_of(config))


def check_words(config: Config) -> list[str]:
    """Notes on the checkpoint that a new run starts from, if any."""
    if not config.init.checkpoint:
        return []
    return resume.check_words(checkpoint_folder(Path(config.init.checkpoint)), config)


def _check_may_resume(config: Config) -> None:
    folder = Path(config.out) / "checkpoints"
    if latest(folder) and not config.checkpoint.resume:
        raise UserError(f"{folder}: holds checkpoints, and checkpoint.resume is false (set another `out`)")
