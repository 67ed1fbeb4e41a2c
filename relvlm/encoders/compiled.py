"""torch.compile of the transformer layers one by one: each class once, for all its layers and whatever batch comes."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from functools import cache
from types import MethodType
from typing import Any

import torch
from torch import nn

from relvlm.encoders.recompute import transformer_layers
from relvlm.errors import UserError


def check_compiler() -> None:
    """UserError where there is no C++ compiler: inductor writes C++ for CPUs, Triton its launchers for GPUs."""
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(compiler) is None:
        raise UserError(
            f"model.compile: true, but no C++ compiler {compiler!r} on this machine "
            "(install g++, let CXX name another, or set model.compile=false)"
        )


def compile_layers(*encoders: nn.Module) -> None:
    """Lets every transformer layer run compiled, for any number of rows, groups and images.

    Call it before `recompute_layers`, which checkpoints the compiled layer, and after what is to stay eager has been
    copied. Names in `state_dict` stay.
    """
    for layer in transformer_layers(*encoders):
        # a method, so that a copied layer runs with its own weights
        layer.forward = MethodType(_compiled(type(layer).forward), layer)


@cache
def _compiled(forward: Callable[..., Any]) -> Callable[..., Any]:
    """With dynamic shapes: any size but the weights' may differ from batch to batch.

    Padding rows to a few sizes instead could at best bring the speed of fixed shapes, which was the same (mid size of
    benchmarks/train_step.py on a CPU: 0.84 s a step with either).
    """
    return torch.compile(forward, dynamic=True)
