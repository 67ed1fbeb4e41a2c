"""Kinds of command-line values that argparse lacks."""

from __future__ import annotations

import argparse


def positive(text: str) -> int:
    """A whole number above 0; argparse names the flag in its message."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return number
