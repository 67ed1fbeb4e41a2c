"""Slices of parameters in files, put together for whoever reads them."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from relvlm.engine.slices import Slice
from relvlm.engine.state_files import StateFiles, file_of, staged, write
from relvlm.errors import UserError

WHOLE = {name: torch.arange(12.0) + 100 * place for place, name in enumerate(("weight", "exp_avg", "exp_avg_sq"))}


def piece(start: int, end: int, name: str = "text.bias") -> Slice:
    return Slice(name, start, {part: values[start:end].clone() for part, values in WHOLE.items()})


def empty(start: int, n: int, name: str = "text.bias") -> Slice:
    return Slice(name, start, {part: torch.full((n,), -1.0) for part in WHOLE})


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Of three ranks, the last of which has two slices."""
    for rank, slices in enumerate(([piece(0, 5)], [piece(5, 6)], [piece(6, 12), piece(0, 12, "head.weight")])):
        write(tmp_path / file_of(rank), staged(slices))
    return tmp_path


@pytest.mark.parametrize(("start", "n"), [(s, n) for s in range(12) for n in range(1, 13 - s)])
def test_any_slice_is_read_from_the_pieces_of_others(checkpoint, start, n):
    wanted = empty(start, n)
    StateFiles(checkpoint).read_into(wanted)
    for part, values in WHOLE.items():
        assert torch.equal(wanted.parts[part], values[start : start + n])


def test_what_is_staged_no_longer_follows_the_training(checkpoint):
    moving = piece(0, 12)
    copies = staged([moving])
    moving.parts["weight"].zero_()
    assert torch.equal(copies["weight:0:text.bias"], WHOLE["weight"])


def test_names_are_those_of_all_files(checkpoint):
    assert StateFiles(checkpoint).names() == {"text.bias", "head.weight"}


def test_an_element_that_nobody_wrote_is_named(checkpoint):
    (checkpoint / file_of(1)).unlink()
    state = StateFiles(checkpoint)
    state.read_into(empty(0, 5))
    for start, n in ((0, 6), (5, 1), (5, 7)):
        with pytest.raises(UserError, match=r"no weight of text\.bias from element 5 on"):
            state.read_into(empty(start, n))
    with pytest.raises(UserError, match=r"no weight of gone from element 2 on"):
        state.read_into(empty(2, 3, "gone"))


def test_a_model_without_a_state_and_a_torn_file_are_named(checkpoint, tmp_path):
    (checkpoint / file_of(0)).write_bytes(b"torn")
    with pytest.raises(UserError, match="the training state is not readable"):
        StateFiles(checkpoint)
    save_file({"other": torch.zeros(1)}, checkpoint / file_of(0))
    with pytest.raises(UserError, match="the training state is not readable"):
        StateFiles(checkpoint)
    with pytest.raises(UserError, match=r"no state_\*\.safetensors: a model alone"):
        StateFiles(tmp_path / "none")
