"""Single values: of the type that a field has, or exactly converted to it, and within its range."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

from relvlm.config.ranges import Range, Text
from relvlm.errors import UserError
from relvlm.paths import expand

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")  # what JSON writes and YAML 1.1 takes for a string
log = logging.getLogger(__name__)


def read(kind: Any, limits: Any, value: Any) -> Any:
    """The value of a field; UserError, which does not name the field, where it is another type or out of range."""
    converted = _converted(kind, value)
    if type(converted) is not kind:  # bool is an int, too
        raise UserError(f"expected {kind.__name__}, found {value!r}")
    fault = limits.fault(converted) if isinstance(limits, Range | Text) else None
    if fault:
        raise UserError(fault)
    if isinstance(limits, Text) and limits.path:
        return _expanded(converted)
    return converted


def expand_at(path: str, origin: Path, field: str) -> str:
    """`relvlm.paths.expand`, whose error names the field."""
    try:
        return expand(path)
    except UserError as error:
        raise UserError(f"{origin}: {field}: {error}") from error


def _converted(kind: type, value: Any) -> Any:
    """A number as the other kind of number where that loses nothing, else the value itself."""
    if kind not in (int, float) or isinstance(value, bool):
        return value
    if isinstance(value, str):
        if not _NUMBER.fullmatch(value):
            return value
        value = float(value) if re.search(r"[.eE]", value) else int(value)
    if not isinstance(value, int | float):
        return value
    try:
        number = kind(value)
    except (OverflowError, ValueError):  # 10**400 as a float; nan or inf as an int
        return value
    return number if number == value or value != value else value


def _expanded(path: str) -> str:
    found = expand(path)
    if found != path:
        log.info("%s is %s", path, found)
    return found
