"""How right fp32 is: measured by plain PyTorch's fp32, or an official code's, and not by a bound of our own.

How far fp32 is from the truth depends on the machine: on its instructions and threads, on the order in which its
libraries sum. A fixed bound that holds on one fails on the next, or is so wide that it shows nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor

SHARE = 0.9


def assert_as_close_as(actual: Any, plain: Any, truth: Any, factor: float = 2.0) -> None:
    """Every output of `actual` is at most `factor` times as far from the truth as that of `plain` is.

    Each is a tensor, or mappings and sequences of tensors of one structure; `truth` in fp64, the other two in the dtype
    that is judged. Distances are roots of mean squared differences, sizes those of the truth's mean squares.

    An output that few roundings make up, such as a loss or the bias of a two-way head, may be right by mere luck. So
    none has to be closer, relative to its size, than SHARE of the plain outputs are; nor, for the sake of exact zeros,
    closer than one rounding of the largest size.

    Where SHARE of the plain outputs are not within rounding of the truth (the root of their epsilon) they are not of
    the same thing, and whatever is as far off as they are would pass: an error in the test.
    """
    found, other, exact = (dict(_outputs(x)) for x in (actual, plain, truth))
    shapes = [{name: x.shape for name, x in outputs.items()} for outputs in (found, other, exact)]
    assert shapes[0] == shapes[1] == shapes[2], shapes
    epsilon = max(torch.finfo(x.dtype).eps for x in other.values() if x.is_floating_point())
    sizes = {name: _rms(x) for name, x in exact.items()}
    nothing = epsilon * max(sizes.values())
    distances = {name: _rms(x.double() - exact[name]) for name, x in other.items()}
    relative = sorted(distances[name] / size for name, size in sizes.items() if size > nothing)
    typical = relative[int(SHARE * (len(relative) - 1))] if relative else 0.0
    assert typical <= epsilon**0.5, f"plain outputs are off by {typical:.1e}: not of the same thing as the truth"
    wrong = []
    for name, x in found.items():
        distance = _rms(x.double() - exact[name])
        allowed = factor * max(distances[name], typical * sizes[name], nothing)
        if not distance <= allowed:
            wrong.append(f"{name}: {distance:.1e} from the truth, {allowed:.1e} is allowed")
    assert not wrong, "\n".join(wrong)


def _outputs(x: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors of a structure and their places in it."""
    if isinstance(x, Tensor):
        yield name, x.detach()
    else:
        parts = x.items() if isinstance(x, Mapping) else enumerate(x)
        yield from chain.from_iterable(_outputs(part, f"{name}/{key}") for key, part in parts)


def _rms(x: Tensor) -> float:
    return x.double().square().mean().sqrt().item() if x.numel() else 0.0
