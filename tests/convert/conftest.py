"""What the tests of both families share."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from support.closeness import assert_as_close_as
from torch import Tensor

from relvlm.convert.parity import Errors, compare

TOLERANCE = 1e-9  # of the largest official value, at least of 1
STORED_IN_FP32 = 1e-6  # whole gradients of the fp64 run
NOT_OUTPUTS = {"alpha", "neg_image_idx", "neg_text_idx", "temp_in"}


@pytest.fixture(scope="session")
def vectors(shared: Path) -> Callable[[str], dict[str, Any]]:
    """A file of reference vectors by name."""
    return lambda name: torch.load(shared / f"parity/{name}.pt", weights_only=True)


@pytest.fixture(scope="session")
def compared(shared: Path) -> Callable[[str, torch.dtype], Errors]:
    """Our outputs beside the official ones, for a file of vectors; of fp64 beside its fp64 run."""
    return cache(lambda name, dtype: compare(shared / f"parity/{name}.pt", dtype))


@pytest.fixture(scope="session")
def too_far(compared) -> Callable[[str], list[str]]:
    """The outputs in fp64 that are off by more than rounding."""
    return lambda name: [
        f"{e.output} ({e.route}): {e.relative:.1e}"
        for e in compared(name, torch.float64)
        if not e.relative <= (STORED_IN_FP32 if "grad/full" in e.output else TOLERANCE)
    ]


@pytest.fixture(scope="session")
def assert_fp32_is_as_good(compared) -> Callable[[str], None]:
    """Each output in fp32 is at most twice as far from the official fp64 run as the official fp32 run is."""

    def check(name: str) -> None:
        single, double = (compared(name, dtype) for dtype in (torch.float32, torch.float64))
        named = [f"{e.output} ({e.route})" for e in single]
        assert named == [f"{e.output} ({e.route})" for e in double]
        assert_as_close_as(
            dict(zip(named, (e.found for e in single), strict=True)),
            plain=dict(zip(named, (e.official for e in single), strict=True)),
            truth=dict(zip(named, (e.official for e in double), strict=True)),
        )

    return check


@pytest.fixture(scope="session")
def never_compared(compared, vectors) -> Callable[[str], list[str]]:
    """The official outputs that `compare` leaves out."""

    def outputs(name: str) -> list[str]:
        names = {error.output for error in compared(name, torch.float32)}
        return [key for key in leaves(vectors(name)["outputs"]) if key not in names]

    return outputs


def leaves(official: dict, path: str = "") -> list[str]:
    """Names of the outputs, as `compare` has them."""
    names = []
    for key, value in official.items():
        where = f"{path}{key}"
        if key in NOT_OUTPUTS:
            continue
        if where.endswith(("grad/norm", "after_momentum_sum")) or not isinstance(value, dict):
            names.append(where)
        elif where == "temp_clamp":
            names += [name for case in value for name in leaves(value[case], f"temp_clamp {case}/")]
        elif where.endswith("grad/full"):
            names += [f"{where} {name}" for name in value]
        else:
            names += leaves(value, f"{where}/")
    return names


@pytest.fixture(scope="session")
def full_size(shared: Path) -> Callable[[str], tuple[dict[str, Tensor], dict]]:
    """An official state_dict of full size, each tensor filled with a number of its own but where tied; its config."""

    def state_dict(family: str) -> tuple[dict[str, Tensor], dict]:
        listed = json.loads((shared / f"parity/{family}_base_keys.json").read_text())
        tensors = {}
        for number, (key, entry) in enumerate(listed["keys"].items()):
            count = int(torch.tensor(entry["shape"]).prod())
            tensors[key] = torch.arange(count, dtype=getattr(torch, entry["dtype"])).view(entry["shape"]) + number
        for first, second in listed["tied"]:
            tensors[second] = tensors[first]
        return tensors, listed["config"] | {"bert_config": listed["bert_config"]}

    return state_dict
