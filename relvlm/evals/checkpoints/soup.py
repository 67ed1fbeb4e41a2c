"""Weight averaging over the checkpoints of a run: uniform, exponential, and greedy by a dev task.

The result is a checkpoint folder of its own, `config.json` naming what is in it (Wortsman et al., ICML 2022).
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from relvlm.errors import UserError
from relvlm.evals.files import read_json

log = logging.getLogger(__name__)

Weights = dict[str, Tensor]
SAME = ("model", "vocab_size", "relations")  # of config.json: what checkpoints of one soup share


def average(checkpoints: Sequence[Path], shares: Sequence[float]) -> Weights:
    """Sum of share * weights, accumulated in fp64, one checkpoint in memory at a time."""
    total: Weights = {}
    for checkpoint, share in zip(checkpoints, shares, strict=True):
        for name, tensor in read_weights(checkpoint).items():
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
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    save_file(
        {name: tensor.contiguous() for name, tensor in weights.items()}, temporary / "model.safetensors"
    )
    last = checkpoints[-1]
    description = read_json(last / "config.json") | {"soup": recipe}
    (temporary / "config.json").write_text(json.dumps(description, indent=1))
    shutil.copyfile(last / "vocab.txt", temporary / "vocab.txt")
    shutil.rmtree(out, ignore_errors=True)
    temporary.rename(out)
    return out


def check_same(checkpoints: Sequence[Path]) -> None:
    """UserError where two checkpoints are not of one model."""
    first, *others = checkpoints
    wanted = _model_of(first)
    for path in others:
        found = _model_of(path)
        if found != wanted:
            differ = next(name for name, a, b in zip(SAME, wanted, found, strict=True) if a != b)
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


def _model_of(checkpoint: Path) -> list[object]:
    description = read_json(checkpoint / "config.json")
    return [description.get(name) for name in SAME]


def named(paths: Iterable[Path]) -> list[str]:
    """Folder names, for the recipe."""
    return [path.name for path in paths]
