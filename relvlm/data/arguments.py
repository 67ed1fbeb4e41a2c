"""Kinds of command-line values that argparse lacks."""

from __future__ import annotations

import argparse

from relvlm.data.shards.address import Address, Place, SplitPlace, place_of
from relvlm.errors import UserError
from relvlm.paths import argument


def positive(text: str) -> int:
    """A whole number above 0; argparse names the flag in its message."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return number


def shard_set(text: str) -> Place:
    """A folder, an address, or the one for tars and the other for the rest."""
    try:
        place = place_of(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if isinstance(place, SplitPlace):
        return SplitPlace(argument(str(place.folder)), place.tars)
    return place if isinstance(place, Address) else argument(text)


def share(text: str) -> float:
    """A number from 0 to 1."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no share from 0 to 1")
    return number
