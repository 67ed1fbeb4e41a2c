"""Compiled libraries: loading one with ctypes, and the C structures that its functions take.

Structures are made by the names that their fields have in the C header. The library says where each field lies
(csrc/common/layout.h); one that says otherwise than the classes here is of other sources, and is not loaded.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

REINSTALL = "run pip install again in the source tree"


class Structure(ctypes.Structure):
    """One that C has under the same name, with fields of the same names: `Call(width=64)`.

    Classes have no other attributes (`__slots__`), so that a name that is no field is an AttributeError.
    """

    __slots__ = ()


def fields(*types: tuple[type, str]) -> list[tuple[str, type]]:
    """`_fields_` of a structure from pairs of a type and names."""
    return [(name, of) for of, names in types for name in names.split()]


class Library:
    """`_NAME.so` beside this file, which setup.py builds; its functions are `relvlm_...` or so.

    `functions`: by name, of what types the arguments are; structures go by address. `prepare` is called once, with the
    library as it was loaded.
    """

    def __init__(
        self,
        name: str,
        prefix: str,
        structures: tuple[type[Structure], ...],
        functions: Mapping[str, tuple[Any, ...]] = MappingProxyType({}),
        prepare: Callable[[ctypes.CDLL], None] = lambda library: None,
    ) -> None:
        self.path = Path(__file__).with_name(f"_{name}.so")
        self.prefix = prefix
        self.structures, self.functions, self.prepare = structures, functions, prepare

    @property
    def record(self) -> str:
        """How setup.py built it, or why not."""
        record = self.path.with_suffix(".txt")
        return record.read_text().strip() if record.exists() else f"not built ({REINSTALL})"

    @cached_property
    def loaded(self) -> ctypes.CDLL:
        """Raises OSError saying why there is none."""
        if not self.path.exists():
            raise OSError(f"{self.path.name}: {self.record}")
        library = ctypes.CDLL(str(self.path))
        layout = getattr(library, f"{self.prefix}layout", None)
        wrong = misplaced(self.structures, _text(layout)) if layout else ["no layout"]
        if wrong:
            raise OSError(f"{self.path}: of other sources than this Python code: {wrong[0]} ({REINSTALL})")
        self.prepare(library)
        return library

    @property
    def missing(self) -> str:
        """Why it cannot be used; empty where it can."""
        try:
            self.loaded  # noqa: B018
        except OSError as error:
            return str(error)
        return ""

    @cached_property
    def _callable(self) -> dict[str, Callable[..., int]]:
        found = {name: getattr(self.loaded, self.prefix + name) for name in self.functions}
        for name, types in self.functions.items():
            found[name].argtypes = [ctypes.POINTER(of) if issubclass(of, Structure) else of for of in types]
        return found

    def call(self, function: str, *arguments: Structure | int) -> int:
        """The status that a function gives; ctypes.ArgumentError where arguments are of other types than it takes."""
        return self._callable[function](*arguments)

    def text(self, function: str, *arguments: int) -> str:
        """The text that a function gives."""
        return _text(getattr(self.loaded, self.prefix + function), *arguments)


def _text(function: ctypes._NamedFuncPointer, *arguments: int) -> str:
    function.restype = ctypes.c_char_p
    return function(*arguments).decode()


def misplaced(structures: tuple[type[Structure], ...], layout: str) -> list[str]:
    """What lies elsewhere in the library than here, or is in one of them alone; `layout`: see csrc/common/layout.h."""
    ours = {
        (of.__name__, name): (getattr(of, name).offset, getattr(of, name).size)
        for of in structures for name, *_ in of._fields_
    } | {(of.__name__, "sizeof"): (0, ctypes.sizeof(of)) for of in structures}  # fmt: skip
    lines = (line.split() for line in layout.splitlines())
    theirs = {(structure, name): (int(offset), int(size)) for structure, name, offset, size in lines}
    places = {key: (ours.get(key), theirs.get(key)) for key in ours | theirs}
    return [f"{of}.{name}: {a} here, {b} there" for (of, name), (a, b) in places.items() if a != b]
