"""Registers ops with `torch.library`: a kernel, a fake and a backward, with as little Python around them as can be.

A step calls hundreds of them. `torch.library.custom_op` looks for aliases and turns the compiler off in each call,
which costs more than some of the kernels do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import _C, Tensor, autograd
from torch._C._dynamo import eval_frame
from torch._ops import OpOverload
from torch.library import Library, register_fake

LIBRARY = Library("relvlm", "FRAGMENT")


def register(
    schema: str, kernel: Callable[..., Any], fake: Callable[..., Any], save: Callable[..., None],
    vjp: Callable[..., tuple[Tensor | None, ...]],
) -> OpOverload:  # fmt: skip
    """The op `relvlm::NAME` of `schema` ("NAME(Tensor x, ...) -> ..."), whose arguments are all positional.

    kernel: runs it, below autograd and autocast. fake: its outputs' shapes alone. save(ctx, inputs, output) and
    vjp(ctx, *grads), one gradient for each argument: as `setup_context` and `backward` of an autograd function.
    """
    name = schema.partition("(")[0]
    LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    op = getattr(torch.ops.relvlm, name).default

    def run(*args: Any) -> Any:
        with _C._DisableAutocast():
            return kernel(*args)

    _leave_to_python(run)
    LIBRARY.impl(name, run, "CompositeExplicitAutograd")
    register_fake(f"relvlm::{name}", fake, lib=LIBRARY)
    LIBRARY.impl(name, _differentiable(op, save, vjp), "Autograd", with_keyset=True)
    return op


def _differentiable(op: OpOverload, save: Callable[..., None], vjp: Callable[..., Any]) -> Callable[..., Any]:
    """The op where autograd asks for it."""
    leading = sum(str(argument.type) == "Tensor" for argument in op._schema.arguments)  # before numbers and the seed

    def below(keyset: Any, args: Sequence[Any]) -> Any:
        with _C._AutoDispatchBelowAutograd():
            return op.redispatch(keyset & _C._after_autograd_keyset, *args)

    def forward(ctx: Any, *args: Any) -> Any:
        *inputs, keyset = args
        output = below(keyset, inputs)
        save(ctx, inputs, output)
        return output

    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        return *vjp(ctx, *grads), None

    methods = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    function: Any = type(f"relvlm_{op._opname}", (autograd.Function,), methods)
    apply = super(autograd.Function, function).apply  # its own looks through the arguments for those of torch.func

    def run(keyset: Any, *args: Any) -> Any:
        if torch.is_grad_enabled():
            for x in args[:leading]:
                if x.requires_grad:
                    return apply(*args, keyset)
        return below(keyset, args)

    _leave_to_python(run)
    _leave_to_python(backward)
    return run


def _leave_to_python(function: Any) -> None:
    """The compiler neither traces it nor what it calls, where the code around it was left to Python as well.

    As `torch.compiler.disable`, but at no cost in each call.
    """
    skip = eval_frame._FrameAction.SKIP
    eval_frame.set_code_exec_strategy(function.__code__, eval_frame._FrameExecStrategy(skip, skip))


def nothing(ctx: Any, inputs: Any, output: Any) -> None:
    """What the backward of a backward saves."""
