"""Registers ops with `torch.library`: a kernel, a fake and a backward, with as little Python around them as can be.

A step calls hundreds of them. `torch.library.custom_op` looks for aliases and turns the compiler off in each call,
which costs more than some of the kernels do. So does the way through the dispatcher, twice in each call; where nobody
looks on, it is not taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import _C, Tensor, autograd
from torch._C._dynamo import eval_frame
from torch.library import Library, register_fake

from relvlm_kernels.recent import called_eagerly

LIBRARY = Library("relvlm", "FRAGMENT")
PLAIN = frozenset((Tensor, torch.nn.Parameter))
AT_REST = _C.DispatchKeySet(_C.DispatchKey.BackendSelect).add(_C.DispatchKey.ADInplaceOrView)  # no mode, no transform


def register(
    schema: str, kernel: Callable[..., Any], fake: Callable[..., Any], save: Callable[..., None],
    vjp: Callable[..., tuple[Tensor | None, ...]],
) -> Callable[..., Any]:  # fmt: skip
    """The op `relvlm::NAME` of `schema` ("NAME(Tensor x, ...) -> ..."), whose arguments are all positional.

    kernel: runs it, below autograd and autocast. fake: its outputs' shapes alone. save(ctx, inputs, output) and
    vjp(ctx, *grads), one gradient for each argument: as `setup_context` and `backward` of an autograd function.
    """
    name = schema.partition("(")[0]
    LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    op = getattr(torch.ops.relvlm, name).default
    leading = sum(str(argument.type) == "Tensor" for argument in op._schema.arguments)  # before numbers and the seed

    def run(*args: Any) -> Any:
        with _C._DisableAutocast():
            return kernel(*args)

    def below(keyset: Any, *args: Any) -> Any:
        if keyset is None:  # no dispatcher
            return called_eagerly(run, *args)
        with _C._AutoDispatchBelowAutograd():
            return op.redispatch(keyset & _C._after_autograd_keyset, *args)

    apply = _differentiable(name, below, save, vjp)

    def differentiated(keyset: Any, *args: Any) -> Any:
        if torch.is_grad_enabled():
            for x in args[:leading]:
                if x.requires_grad:
                    return apply(*args, keyset)
        return below(keyset, *args)

    def call(*args: Any) -> Any:
        watched = torch.compiler.is_compiling() or _is_watched(args[:leading])
        return op(*args) if watched else differentiated(None, *args)

    for function in (run, differentiated, call):
        _leave_to_python(function)
    LIBRARY.impl(name, run, "CompositeExplicitAutograd")
    register_fake(f"relvlm::{name}", fake, lib=LIBRARY)
    LIBRARY.impl(name, differentiated, "Autograd", with_keyset=True)
    return call


def _differentiable(
    name: str, below: Callable[..., Any], save: Callable[..., None], vjp: Callable[..., Any]
) -> Callable[..., Any]:
    """`below` with a gradient."""

    def forward(ctx: Any, *args: Any) -> Any:
        *inputs, keyset = args
        output = below(keyset, *inputs)
        save(ctx, inputs, output)
        return output

    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        return *vjp(ctx, *grads), None

    _leave_to_python(backward)
    methods = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    function: Any = type(f"relvlm_{name}", (autograd.Function,), methods)
    apply: Callable[..., Any] = super(autograd.Function, function).apply  # its own looks for arguments of torch.func
    return apply


def _is_watched(tensors: Sequence[Tensor]) -> bool:
    """Whether somebody is to see each op (a mode, a transform, a trace, a profiler), or these are more than numbers."""
    for x in tensors:
        if type(x) not in PLAIN or x.is_meta:
            return True
    return _C._dispatch_tls_local_include_set() != AT_REST or _C._autograd._profiler_enabled()


def _leave_to_python(function: Any) -> None:
    """The compiler neither traces it nor what it calls, where the code around it was left to Python as well.

    As `torch.compiler.disable`, but at no cost in each call.
    """
    skip = eval_frame._FrameAction.SKIP
    eval_frame.set_code_exec_strategy(function.__code__, eval_frame._FrameExecStrategy(skip, skip))


def nothing(ctx: Any, inputs: Any, output: Any) -> None:
    """What the backward of a backward saves."""
