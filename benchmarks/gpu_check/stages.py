"""The stages of the check, in their order, and how long each may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """Runs as a process of its own, `python -m gpu_check.NAME`, for at most so many seconds.

    `interpreted`: in a rehearsal, Triton's kernels run in its interpreter.
    """

    name: str
    seconds: int
    interpreted: bool = False


BUILD, TABLE = Stage("build", 125), Stage("table", 15)
PARTS = {
    "a": (
        BUILD,
        Stage("ceilings", 40),
        Stage("gpu_tests", 135),
        Stage("sanitizer", 85, interpreted=True),
        Stage("kernels", 120, interpreted=True),
        TABLE,
    ),
    "b": (
        BUILD,
        Stage("peers", 120),
        Stage("step", 180),
        Stage("nsight", 55, interpreted=True),
        TABLE,
    ),
}  # either comes to less than nine minutes
MISSING = 3  # the exit status of `build` where the cuda kernels cannot run
PARTS_OF_A_CALL = ("plan", "attend", "dq", "dkdv")  # of attention, forward and backward
