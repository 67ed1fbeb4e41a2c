"""Weight averaging over the checkpoints of a run: uniform, exponential, and greedy by a dev task.

The result is a checkpoint folder of its own, `config.json` naming what is in it (Wortsman et al., ICML 2022).
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from relvlm.errors import UserError
from relvlm.evals.files import read_object
from relvlm.pretrained import MODEL_TYPE, description_text, write_tensors

log = logging.getLogger(__name__)

Weights = dict[str, Tensor]
SAME = ("model", "vocab_size", "relations")  # of config.json: what checkpoints of one soup share


def average(checkpoints: Sequence[Path], shares: Sequence[float]) -> Weights:
    """Sum of share * weights, accumulated in fp64, one checkpoint in memory at a time."""
    total: Weights = {}
    for checkpoint, share in zip(checkpoints, shares, strict=True):
        weights = read_weights(checkpoint)
        _check_shapes(weights, total, checkpoint)
        for name, tensor in weights.items():
            part = tensor.double() * share
            total[name] = total[name].add_(part) if name in total else part
    return {name: tensor.float() for name, tensor in total.items()}


def uniform_shares(count: int) -> list[float]:
    """The same for all."""
    return [1 / count] * count


def ema_shares(count: int, decay: float) -> list[float]:
    """Those of m <- decay * m + (1 - decay) * w over the checkpoints in order, from the first one's weights."""
    shares = [(1 - decay) * decay ** (count - 1 - i) for i in range(count)]
    shares[0] = decay ** (count - 1)
    return shares


def greedy(
    checkpoints: Sequence[Path], judge: Callable[[Sequence[Path]], float]
) -> tuple[list[Path], list[tuple[str, float, bool]]]:
    """Members of the soup, and (what was tried, its figure, whether it stayed) in order.

    `judge` scores the uniform average of some checkpoints. Best first; one is added where the average of all so far
    does not get worse by it.
    """
    alone = {path: judge([path]) for path in checkpoints}
    ranked = sorted(checkpoints, key=lambda path: -alone[path])
    members, best = [ranked[0]], alone[ranked[0]]
    steps = [(ranked[0].name, best, True)]
    for path in ranked[1:]:
        figure = judge([*members, path])
        steps.append((f"+ {path.name}", figure, figure >= best))
        if figure >= best:
            members, best = [*members, path], figure
        log.info("%s %.2f%s", *steps[-1][:2], "" if steps[-1][2] else " (left out)")
    return members, steps


def write(weights: Weights, checkpoints: Sequence[Path], out: Path, recipe: dict[str, object]) -> Path:
    """A checkpoint folder that `relvlm.load` reads: under a temporary name first, then in place."""
    out = out.resolve()  # `.` has no name, and a link is not to be replaced, but what it leads to
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    write_tensors(temporary / "model.safetensors", {name: tensor.contiguous() for name, tensor in weights.items()})
    last = checkpoints[-1]
    description = {"model_type": MODEL_TYPE} | read_object(last / "config.json") | {"soup": recipe}
    (temporary / "config.json").write_text(description_text(description))
    shutil.copyfile(last / "vocab.txt", temporary / "vocab.txt")
    shutil.rmtree(out, ignore_errors=True)
    temporary.rename(out)
    return out


def check_same(checkpoints: Sequence[Path]) -> None:
    """UserError where two checkpoints are not of one model, and where one is given twice."""
    first, *others = checkpoints
    twice = next((path for i, path in enumerate(checkpoints) if path.resolve() in _resolved(checkpoints[:i])), None)
    if twice is not None:
        raise UserError(f"{twice}: given twice (name each checkpoint once)")
    wanted = _model_of(first)
    for path in others:
        found = _model_of(path)
        if found != wanted:
            differ = next(name for name, a, b in zip((*SAME, "vocab.txt"), wanted, found, strict=True) if a != b)
            raise UserError(f"{path}: {differ}: not that of {first} (average checkpoints of one run)")


def read_weights(checkpoint: Path) -> Weights:
    """Tensors of a checkpoint; UserError where they are not readable or not finite."""
    path = checkpoint / "model.safetensors"
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: not readable: {error}") from error
    bad = next((name for name, x in tensors.items() if not bool(torch.isfinite(x).all())), None)
    if bad is not None:
        raise UserError(f"{path}: {bad}: not finite (has the model diverged? leave this checkpoint out)")
    return tensors


def _check_shapes(weights: Weights, total: Weights, checkpoint: Path) -> None:
    """A tensor that one of them lacks would be averaged over fewer, and so be too small."""
    odd = sorted(weights.keys() ^ total.keys()) if total else []
    odd = odd or [name for name, x in weights.items() if total and x.shape != total[name].shape]
    if odd:
        path = checkpoint / "model.safetensors"
        raise UserError(f"{path}: {odd[0]}: not in all checkpoints, in one shape (average checkpoints of one run)")


def _model_of(checkpoint: Path) -> list[object]:
    description = read_object(checkpoint / "config.json")
    vocab = checkpoint / "vocab.txt"
    if not vocab.is_file():
        raise UserError(f"{vocab}: no such file (is the checkpoint complete?)")
    return [*(description.get(name) for name in SAME), vocab.read_bytes()]


def _resolved(paths: Iterable[Path]) -> set[Path]:
    return {path.resolve() for path in paths}


def named(paths: Iterable[Path]) -> list[str]:
    """Folder names, for the recipe; where two have the same name, from the folder on that all of them lie in.

    No whole paths: a soup is published, and where it was made is nobody's matter.
    """
    every = [path.resolve() for path in paths]
    names = [path.name for path in every]
    above = os.path.commonpath(every)
    return names if len(set(names)) == len(names) else [str(path.relative_to(above)) for path in every]
