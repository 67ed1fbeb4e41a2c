"""Weights on disk: what is read, and what is said of the rest."""

import argparse
import pickle
from pathlib import Path

import numpy
import pytest
import torch

from relvlm.convert.files import read_weights, state_dict_of
from relvlm.errors import UserError

TENSORS = {"a.weight": torch.arange(3.0)}


def saved(folder: Path, content: object) -> Path:
    torch.save(content, folder / "in.pth")
    return folder / "in.pth"


@pytest.mark.parametrize(
    "beside",
    [{"best": numpy.float64(0.5)}, {"epoch": numpy.int64(3)}, {"args": argparse.Namespace(lr=1e-4)}, {"seen": None}],
)
def test_what_trainings_keep_beside_their_weights_is_read(beside, tmp_path):
    found = read_weights(saved(tmp_path, {"model": TENSORS, **beside}))
    assert torch.equal(found["model"]["a.weight"], TENSORS["a.weight"])
    assert {name: found[name] for name in beside} == beside


class Ours:
    pass


def test_another_class_is_named_with_the_way_to_a_safe_file(tmp_path):
    with pytest.raises(UserError, match=r"in\.pth: holds a (tests\.convert\.)?test_files\.Ours, .*its tensors alone"):
        read_weights(saved(tmp_path, {"model": TENSORS, "config": Ours()}))


def test_nothing_in_a_file_is_run(tmp_path):
    class Harm:
        def __reduce__(self):
            return Path.touch, (tmp_path / "harm",)

    file = tmp_path / "in.pth"
    file.write_bytes(pickle.dumps(Harm()))
    with pytest.raises(UserError):
        read_weights(file)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "not a file of PyTorch's: a git-lfs pointer"),
        (b"  <!DOCTYPE html>", "not a file of PyTorch's: a web page"),
        (b'{"a": 1}', "not a file of PyTorch's: JSON"),
        (b"hello", "not a file of PyTorch's: starts with b'hello'"),
        (b"", "no readable weights"),
    ],
)
def test_a_file_of_another_kind_is_called_so(content, message, tmp_path):
    file = tmp_path / "in.pth"
    file.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_weights(file)


@pytest.mark.parametrize("name", ["gone.pth", "gone.safetensors"])
def test_a_file_that_is_not_there_is_named(name, tmp_path):
    with pytest.raises(UserError, match=f"{name}: no readable weights"):
        read_weights(tmp_path / name)


@pytest.mark.parametrize("key", ["model", "state_dict"])
def test_a_state_dict_lies_alone_or_under_a_key_with_its_config(key, tmp_path):
    tensors, config = state_dict_of(saved(tmp_path, TENSORS))
    assert (list(tensors), config) == (list(TENSORS), {})
    tensors, config = state_dict_of(saved(tmp_path, {key: TENSORS, "config": argparse.Namespace(temp=0.1)}))
    assert (list(tensors), config) == (list(TENSORS), {"temp": 0.1})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds a list, not a state_dict"),
        ({"model": {}}, "no state_dict, alone or under `model`: it is empty"),
        ({"epoch": 3, **TENSORS}, "no state_dict, alone or under `model`: epoch is a int"),
    ],
)
def test_what_is_no_state_dict_is_refused(content, message, tmp_path):
    with pytest.raises(UserError, match=message):
        state_dict_of(saved(tmp_path, content))
