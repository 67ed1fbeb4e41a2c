"""What was made from index tensors a moment ago, for the other layers of a step and for its backward."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from torch import Tensor

T = TypeVar("T")
SIZE = 8  # a step looks at its images and texts in a few ways


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
