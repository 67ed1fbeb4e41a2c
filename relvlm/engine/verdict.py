"""Why a run gets no further: one cause, from what all ranks have said, twice a few seconds apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from relvlm.engine.heartbeat import ENDED, Sign
from relvlm.engine.process import is_alive

# In their order within a step; a rank in an earlier one holds up the others.
PHASES = ("start", "data", "forward", "backward", "update", "agree", "log", "save", "evaluate", ENDED)
Signs = Sequence[Sign | None]  # one of each rank; None: it has said nothing


@dataclass(frozen=True)
class Cause:
    """In words; `again`: whether the same job may do better (a rank that failed by itself will fail again)."""

    text: str
    again: bool = True


def cause_of(before: Signs, after: Signs, error: str = "") -> Cause:
    """The cause of a hang, or of a lost connection that `error` tells of.

    In that order: a rank that failed, that is dead, that says nothing, whose loader gives nothing, that is behind.
    """
    failed = [sign for sign in after if sign and sign.failure]
    if failed:
        return Cause(f"{_name(failed[0])} failed in {_place(failed[0])}: {failed[0].failure}", again=False)
    signs = [sign for sign in after if sign]
    dead = [sign for sign in signs if sign.phase != ENDED and is_alive(sign.process) is False]
    if dead:
        return Cause(f"{_name(dead[0])} died, last seen in {_place(dead[0])}{_others(dead, signs)}")
    if missing := [rank for rank, sign in enumerate(after) if sign is None]:
        return Cause(f"rank {missing[0]} has said nothing since the start{_others(missing, signs)}")
    silent = [sign for sign in signs if _is_silent(sign, before[sign.rank])]
    if silent:
        still = max(sign.at for sign in signs) - silent[0].at
        place = f"since {_place(silent[0])} for {still:.0f} s"
        return Cause(f"{_name(silent[0])} has said nothing {place}{_others(silent, signs)}")
    return Cause(_slowest(signs, error))


def listing(signs: Signs) -> str:
    """Where each rank was when it last said something, a line each."""
    lines = []
    for rank, sign in enumerate(signs):
        said = f"{_name(sign)}: {_place(sign)} for {sign.waited_s:.0f} s" if sign else f"rank {rank}: nothing"
        lines.append(said + (f"; {sign.workers}" if sign and sign.workers else ""))
    return "\n".join(lines)


def _is_silent(sign: Sign, before: Sign | None) -> bool:
    return sign.phase != ENDED and before is not None and before.beat == sign.beat


def _slowest(signs: list[Sign], error: str) -> str:
    """All live."""
    first = min(signs, key=_progress)
    for_s = f"for {first.waited_s:.0f} s"
    hungry = [sign for sign in signs if sign.workers]
    if hungry:
        return f"{_name(hungry[0])} waits for data in {_place(hungry[0])} {for_s}: {hungry[0].workers}"
    if error:
        return f"{_name(first)} lost its connection in {_place(first)}, though all ranks are there: {error}"
    if len(signs) == 1:
        return f"{_name(first)} is in {_place(first)} {for_s}"
    last = max(signs, key=_progress)
    if _progress(first) == _progress(last):
        return f"all {len(signs)} ranks are in {_place(first)} {for_s}; none of them is behind"
    return f"{_name(first)} is in {_place(first)} {for_s}; rank {last.rank} is in {_place(last)}"


def _progress(sign: Sign) -> tuple[int, int]:
    return sign.step, PHASES.index(sign.phase)


def _name(sign: Sign) -> str:
    return f"rank {sign.rank} on {sign.process.host} (pid {sign.process.pid})"


def _place(sign: Sign) -> str:
    return "the start" if sign.phase == "start" else f"step {sign.step} ({sign.phase})"


def _others(found: Sequence[object], signs: list[Sign]) -> str:
    """How many more are like the first of those found; where the furthest of the rest is, if any."""
    rest = [sign for sign in signs if sign not in found]
    more = f", and so {len(found) - 1} more" if len(found) > 1 else ""
    if not rest:
        return more
    last = max(rest, key=_progress)
    return f"{more}; rank {last.rank} is in {_place(last)}"
