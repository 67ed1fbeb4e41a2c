"""What the tests of both families share."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from relvlm.convert.parity import compare

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}  # of the largest official value, at least of 1
STORED_IN_FP32 = 1e-6  # whole gradients of the fp64 run
NOT_OUTPUTS = {"alpha", "neg_image_idx", "neg_text_idx", "temp_in"}


@pytest.fixture(scope="session")
def vectors(shared: Path) -> Callable[[str], dict[str, Any]]:
    """A file of reference vectors by name."""
    return lambda name: torch.load(shared / f"parity/{name}.pt", weights_only=True)


@pytest.fixture(scope="session")
def too_far(shared: Path) -> Callable[[str, torch.dtype], list[str]]:
    """The outputs of a file of vectors that are off by more than they may be."""

    def outputs(name: str, dtype: torch.dtype) -> list[str]:
        errors = compare(shared / f"parity/{name}.pt", dtype)
        assert {error.route for error in errors} == {"plain", "packed"}
        return [
            f"{e.output} ({e.route}): {e.relative:.1e}"
            for e in errors
            if not e.relative <= max(TOLERANCE[dtype], STORED_IN_FP32 * ("grad/full" in e.output))
        ]

    return outputs


@pytest.fixture(scope="session")
def never_compared(shared: Path, vectors) -> Callable[[str], list[str]]:
    """The official outputs that `compare` leaves out."""

    def outputs(name: str) -> list[str]:
        compared = {error.output for error in compare(shared / f"parity/{name}.pt", torch.float32)}
        return [key for key in leaves(vectors(name)["outputs"]) if key not in compared]

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
            tensors[key] = (
                torch.arange(count, dtype=getattr(torch, entry["dtype"])).view(entry["shape"]) + number
            )
        for first, second in listed["tied"]:
            tensors[second] = tensors[first]
        return tensors, listed["config"] | {"bert_config": listed["bert_config"]}

    return state_dict
