"""Paths as a user writes them: `~` and `$VAR` stand for what a shell puts there, in configs and in arguments alike."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path
from typing import Any

from relvlm.errors import UserError

_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w*)(\}?))")


def expand(text: str) -> str:
    """`text` with its variables and then its `~` replaced; UserError for one that is not set, or empty.

    Variables come first: one that holds `~/data`, because its quotes kept the shell from it, means that folder.
    """
    found = _VARIABLE.sub(lambda match: _variable(match, text), text)
    if found != text and _VARIABLE.search(found):
        raise UserError(f"{text!r} becomes {found!r}, which names a variable again (set it to a plain path)")
    if not found.startswith("~"):
        return found
    home = os.path.expanduser(found)
    if home.startswith("~"):
        raise UserError(f"{text!r}: no home folder of {found.split('/')[0]!r} (a folder of this name is ./{found})")
    return home


def _variable(match: re.Match[str], text: str) -> str:
    name = match[1] or match[2]
    if not name or match[3] == "":
        raise UserError(f"{text!r}: {match[0]!r} is no variable (write $NAME or ${{NAME}})")
    if not os.environ.get(name):
        state = "is empty" if name in os.environ else "is not set"
        raise UserError(f"{text!r}: the environment variable {name} {state} (export it)")
    return os.environ[name]


def argument(text: str) -> Path:
    """A path on the command line; argparse names its flag in the error."""
    if not text:
        raise argparse.ArgumentTypeError("empty, where a path belongs")
    try:
        return Path(expand(text))
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


class Parser(argparse.ArgumentParser):
    """argparse, in which every argument of `type=Path` goes through `argument`; sub-commands are Parsers, too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register("type", Path, argument)
