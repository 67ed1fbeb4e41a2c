"""Derivatives that the ops do not have: each is an error, lest autograd take them for zero."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from torch import Tensor
from torch._C import _functorch
from torch.autograd import forward_ad

FIRST_ONLY = "has first derivatives by backward alone"


def check_differentiation(op: str, tensors: Iterable[Tensor]) -> None:
    """Raises NotImplementedError in forward-mode differentiation, and in torch.func's of these tensors.

    torch.library knows no formula for either: a tangent would be dropped in silence. Under torch.func.vmap the ops run
    once for each entry.
    """
    if forward_ad._current_level >= 0 and any(forward_ad.unpack_dual(x).tangent is not None for x in tensors):
        raise NotImplementedError(f"{op}: no forward-mode derivative (jvp, jacfwd, dual numbers): it {FIRST_ONLY}")
    if _functorch.maybe_current_level() is not None and any(map(_is_differentiated, tensors)):
        raise NotImplementedError(f"{op}: no torch.func derivative (grad, vjp, jacrev): it {FIRST_ONLY}")


def no_second_derivative(op: str) -> Callable[..., Any]:
    """The backward of an op's backward."""

    def refuse(ctx: Any, *grads: Tensor) -> NoReturn:
        raise NotImplementedError(f"{op}: no second derivative: it {FIRST_ONLY}")

    return refuse


def _is_differentiated(x: Tensor) -> bool:
    """Whether torch.func differentiates with respect to it, at any level."""
    while _functorch.is_functorch_wrapped_tensor(x):
        if _functorch.is_gradtrackingtensor(x):
            return True
        x = _functorch.get_unwrapped(x)
    return False
