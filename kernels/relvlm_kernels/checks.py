"""What the ops refuse, in every backend alike: tensors that do not fit each other, and indexes that point elsewhere.

Each error is one line: the op, the argument, what was found and what is expected. TypeError for dtypes and for what is
no tensor, ValueError for shapes, devices and values. Shapes, dtypes and devices cost no wait, and are looked at in each
call that differs in them from those before. Values of index tensors are looked at on the CPU, and on a GPU where
RELVLM_CHECK=1: it costs a wait for the device. Without it a group of an image that is not there sees nothing, and what
else is wrong with them may end the stream in an error, as with torch's own kernels.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from operator import index as whole_number
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from relvlm_kernels.regions import Regions

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
INDEXES = (torch.int32, torch.int64)
FLAGS = (torch.bool,)
NEVER_EMPTY = frozenset(("H", "D", "Dv", "F", "N", "W", "sequences + 1", "G + 1"))
LONGEST_SIDE = 2**15 - 1  # of a grid: kernels hold two coordinates in one word

BAD_OFFSETS = "offsets must rise, within the number of packed rows"
BAD_IMAGE = "a group's image is not there"
BAD_BOX = "a group's box is empty or leaves the grid"
BAD_ROW = "a triplet's row is no row of h"


MOST_PASSED = 4096
_passed: set[tuple[Any, ...]] = set()


def once(check: Callable[..., Any], op: str, tensors: tuple[Tensor, ...], *numbers: int) -> None:
    """check(op, *tensors, *numbers), which looks at shapes, dtypes and devices alone, unless it has passed before.

    A step has many calls that are alike, as those of all layers.
    """
    like = (check, op, numbers, *[(x.shape, x.dtype, x.device) for x in tensors])
    if like in _passed:
        return
    check(op, *tensors, *numbers)
    if len(_passed) == MOST_PASSED:
        _passed.clear()
    _passed.add(like)


class Arguments:
    """The tensors of one call of `op`, looked at one after another: each must fit those before.

    An axis that has a name has one size in all of them; `sizes` may say which beforehand. The first tensor says the
    device, and the first of floating point the dtype.
    """

    def __init__(self, op: str) -> None:
        self.op = op
        self.sizes = {"2": 2, "3": 3, "4": 4}
        self._first: tuple[str, torch.device] | None = None
        self._dtype: tuple[str, torch.dtype] | None = None

    def floats(self, name: str, x: Tensor, *axes: str, dtype: torch.dtype | None = None) -> None:
        """`dtype`: where it is not that of the others."""
        self._fit(name, x, axes, FLOATS)
        of, wanted = (name, dtype) if dtype else self._dtype or (name, x.dtype)
        self._dtype = self._dtype or (of, wanted)
        if x.dtype != wanted:
            like = "" if dtype else f", the dtype of {of}"
            raise TypeError(f"{self.op}: {name} {_short(x.dtype)}: expected {_short(wanted)}{like}")

    def index(self, name: str, x: Tensor, *axes: str) -> None:
        self._fit(name, x, axes, INDEXES)

    def flags(self, name: str, x: Tensor, *axes: str) -> None:
        self._fit(name, x, axes, FLAGS)

    def _fit(self, name: str, x: Tensor, axes: tuple[str, ...], dtypes: tuple[torch.dtype, ...]) -> None:
        shape, sizes = x.shape, self.sizes
        if len(shape) != len(axes):
            self._refuse_shape(name, shape, axes)
        for axis, size in zip(axes, shape, strict=True):
            if sizes.setdefault(axis, size) != size:
                self._refuse_shape(name, shape, axes, f" with {axis} = {sizes[axis]}" if axis not in "234" else "")
            if axis in NEVER_EMPTY and size == 0:
                self._refuse_shape(name, shape, axes, f" with {axis} of at least 1")
        if x.dtype not in dtypes:
            raise TypeError(f"{self.op}: {name} {_short(x.dtype)}: expected {' or '.join(map(_short, dtypes))}")
        first, device = self._first = self._first or (name, x.device)
        if x.device != device:
            raise ValueError(f"{self.op}: {name} on {x.device}: expected {device}, the device of {first}")

    def _refuse_shape(self, name: str, shape: torch.Size, axes: tuple[str, ...], which: str = "") -> None:
        wanted = ", ".join(axes) + "," * (len(axes) == 1)
        raise ValueError(f"{self.op}: {name} {tuple(shape)}: expected ({wanted}){which}")


def check_tensors(op: str, **tensors: Any) -> None:
    """Raises TypeError where one is no dense tensor."""
    for name, x in tensors.items():
        if not isinstance(x, Tensor):
            raise TypeError(f"{op}: {name} is of type {type(x).__name__}: expected a tensor")
        if x.layout != torch.strided:
            raise TypeError(f"{op}: {name} {_short(x.layout)}: expected a dense tensor")


def check_grid(op: str, grid: Any, tokens: int | None = None) -> tuple[int, int]:
    """The grid as two ints; raises ValueError where it has no patch, or where `tokens` have no room for its patches."""
    try:
        rows, columns = map(whole_number, grid)
    except (TypeError, ValueError):
        raise ValueError(f"{op}: grid {grid}: expected (rows, columns)") from None
    if not (1 <= rows <= LONGEST_SIDE and 1 <= columns <= LONGEST_SIDE):
        raise ValueError(f"{op}: grid {rows} x {columns}: expected rows and columns from 1 to {LONGEST_SIDE}")
    if tokens is not None and tokens < rows * columns:
        raise ValueError(f"{op}: {tokens} keys are fewer than the grid's {rows * columns} patches")
    return rows, columns


def wanted(device: torch.device) -> bool:
    """Whether values of index tensors are looked at."""
    return device.type == "cpu" or os.environ.get("RELVLM_CHECK") == "1"


def check_groups(op: str, regions: Regions, queries: int, images: int) -> None:
    """Raises ValueError where these are no groups of so many packed queries and images."""
    check_offsets(op, regions.offsets, queries)
    check_boxes(op, regions.box, regions.image, regions.grid, images)


def check_offsets(op: str, offsets: Tensor, rows: int) -> None:
    rising = (offsets[1:] >= offsets[:-1]).all()
    _require(bool(rising) and int(offsets[0]) >= 0 and int(offsets[-1]) <= rows, op, BAD_OFFSETS)


def check_boxes(op: str, box: Tensor, image: Tensor, grid: tuple[int, int], images: int) -> None:
    _require(_within(image, images), op, BAD_IMAGE)
    x0, y0, x1, y1 = box.unbind(1)
    inside = (x0 >= 0) & (y0 >= 0) & (x0 < x1) & (y0 < y1) & (x1 <= grid[1]) & (y1 <= grid[0])
    _require(bool(inside.all()), op, BAD_BOX)


def check_triplets(op: str, subject_rows: Tensor, object_rows: Tensor, rows: int) -> None:
    _require(_within(subject_rows, rows) and _within(object_rows, rows), op, BAD_ROW)


def _within(index: Tensor, end: int) -> bool:
    if not len(index):
        return True
    least, most = index.aminmax()
    return int(least) >= 0 and int(most) < end


def _require(holds: bool, op: str, message: str) -> None:
    if not holds:
        raise ValueError(f"{op}: {message}")


def _short(of: torch.dtype | torch.layout) -> str:
    return str(of).removeprefix("torch.")
