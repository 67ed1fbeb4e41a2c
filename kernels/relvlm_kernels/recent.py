"""What was made from index tensors a moment ago, for the other layers of a step and for its backward."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Generic, ParamSpec, TypeVar

from torch import Tensor

T = TypeVar("T")
P = ParamSpec("P")
SIZE = 8  # a step looks at its images and texts in a few ways


class _Caller(threading.local):
    is_eager = False


_caller = _Caller()


def called_eagerly(function: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
    """Calls it for code whose tensors' `versions_hold`."""
    before, _caller.is_eager = _caller.is_eager, True
    try:
        return function(*args, **options)
    finally:
        _caller.is_eager = before


def versions_hold() -> bool:
    """Whether a tensor that has been written to surely has another version.

    Not where compiled code may have called the op: it writes new numbers into a tensor that it has no more use for,
    and passes that one on (inductor's reuse of buffers). It calls ops by the dispatcher, which other code goes past.
    """
    return _caller.is_eager


class Recent(Generic[T]):
    """Values by the very tensors that they were made from, as long as nobody writes into these, and by a key."""

    def __init__(self) -> None:
        self._entries: tuple[tuple[Hashable, tuple[Tensor, ...], tuple[int, ...], T], ...] = ()

    def get(self, key: Hashable, tensors: tuple[Tensor, ...], make: Callable[..., T], *arguments: object) -> T:
        """make(*arguments), or what that gave for the same key and tensors. `make` reads what tensors hold alone from
        these. Tensors of inference mode do not say whether they were written to: theirs is made anew.
        """
        for known, owners, versions, value in self._entries:
            if known == key:
                for x, owner, version in zip(tensors, owners, versions, strict=True):
                    if x is not owner or x._version != version:
                        break
                else:
                    return value
        value = make(*arguments)
        try:
            versions = tuple([x._version for x in tensors])
        except RuntimeError:
            return value
        self._entries = ((key, tensors, versions, value), *self._entries[: SIZE - 1])
        return value

    def clear(self) -> None:
        self._entries = ()
