"""Links between tensors of ours and of others: one of ours to one or several of theirs, both ways without loss."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from relvlm.errors import UserError

Tensors = Mapping[str, Tensor]
How = Literal["same", "cat", "tied", "transposed", "scalar", "row", "token", "derived"]
SHOWN = 40  # names listed in an error


@dataclass(frozen=True)
class Link:
    """`ours` is made of `theirs`:

    same; cat: theirs one below another; tied: theirs are equal copies; transposed; scalar: () as (1,);
    row: (S, D) as (1, S, D); token: (D,) as (1, 1, D); derived: theirs is `value` and ours has no such tensor.
    """

    ours: str
    theirs: tuple[str, ...]
    how: How = "same"
    value: Tensor | None = None

    def to_ours(self, tensors: list[Tensor]) -> Tensor:
        """Our tensor of theirs; UserError where copies differ."""
        if self.how == "cat":
            return torch.cat(tensors)
        if self.how == "tied" and not all(torch.equal(tensors[0], t) for t in tensors[1:]):
            raise UserError(f"{', '.join(self.theirs)}: are tied in the official model, but differ here")
        (first, *_) = tensors
        shapes = {"scalar": (1,), "row": (1, *first.shape), "token": (1, 1, *first.shape)}
        if self.how in shapes:
            return first.reshape(shapes[self.how])
        return first.T.contiguous() if self.how == "transposed" else first

    def to_theirs(self, tensor: Tensor) -> list[Tensor]:
        """Their tensors of ours; inverse of `to_ours`."""
        if self.how == "cat":
            return [part.clone() for part in tensor.chunk(len(self.theirs))]
        if self.how == "tied":
            return [tensor] * len(self.theirs)
        shapes = {"scalar": (), "row": tensor.shape[1:], "token": tensor.shape[2:]}
        if self.how in shapes:
            return [tensor.reshape(shapes[self.how])]
        return [tensor.T.contiguous() if self.how == "transposed" else tensor]


def same(pairs: Iterable[tuple[str, str]]) -> list[Link]:
    """Links of (ours, theirs) modules that have a weight and a bias."""
    return [Link(f"{a}.{part}", (f"{b}.{part}",)) for a, b in pairs for part in ("weight", "bias")]


def cat(ours: str, theirs: Iterable[str]) -> list[Link]:
    """Links of a module that holds several of theirs one below another."""
    names = list(theirs)
    return [Link(f"{ours}.{part}", tuple(f"{n}.{part}" for n in names), "cat") for part in ("weight", "bias")]


def prefixed(links: Iterable[Link], ours: str, theirs: str) -> list[Link]:
    """The links with both sides' names prefixed."""
    return [
        Link(ours + link.ours if link.ours else "", tuple(theirs + name for name in link.theirs), link.how, link.value)
        for link in links
    ]  # fmt: skip


def to_ours(links: list[Link], theirs: Tensors, origin: str) -> dict[str, Tensor]:
    """Our tensors; UserError listing every key of theirs that is missing or that no link takes."""
    check_names({name for link in links for name in link.theirs}, set(theirs), origin)
    for link in links:
        if link.value is not None and not _agrees(theirs[link.theirs[0]], link.value):
            raise UserError(f"{origin}: {link.theirs[0]}: is not what it is in the official model of this size")
    return {link.ours: link.to_ours([theirs[n] for n in link.theirs]) for link in links if link.ours}


def to_theirs(links: list[Link], ours: Tensors, origin: str) -> dict[str, Tensor]:
    """Their tensors, in the order of the links; UserError listing every key of ours that is missing or left over."""
    check_names({link.ours for link in links if link.ours}, set(ours), origin)
    theirs: dict[str, Tensor] = {}
    for link in links:
        tensors = [link.value] if link.value is not None else link.to_theirs(ours[link.ours])
        theirs |= dict(zip(link.theirs, tensors, strict=True))
    return theirs


def check_names(expected: set[str], found: set[str], origin: str) -> None:
    """UserError listing what is missing and what is unknown."""
    problems = [
        f"{len(names)} {what}: {', '.join(sorted(names)[:SHOWN])}{', ...' if len(names) > SHOWN else ''}"
        for what, names in (("missing", expected - found), ("unknown", found - expected))
        if names
    ]
    if problems:
        raise UserError(f"{origin}: keys do not fit: {'; '.join(problems)}")


def _agrees(found: Tensor, expected: Tensor) -> bool:
    return found.shape == expected.shape and torch.equal(found.to(expected.dtype), expected)
