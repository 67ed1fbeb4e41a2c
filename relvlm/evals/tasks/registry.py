"""Every benchmark. A new one is a file in this folder, and its name here."""

from __future__ import annotations

from relvlm.errors import UserError
from relvlm.evals.figures.main_table import Column
from relvlm.evals.tasks import (
    aro,
    choice,
    coco,
    cola,
    colorswap,
    flickr30k,
    negbench,
    paragraphs,
    refcoco,
    sugarcrepe,
    sugarcrepe_pp,
    svo,
    valse,
    vismin,
    vl_checklist,
    vsr,
    whatsup,
    winoground,
)
from relvlm.evals.tasks.task import Task

MODULES = (
    *(vsr, valse, svo, winoground, sugarcrepe, aro, whatsup, sugarcrepe_pp, cola, colorswap, vismin),
    *(vl_checklist, negbench, refcoco, choice, paragraphs, coco, flickr30k),
)
TASKS: dict[str, Task] = {module.TASK.name: module.TASK for module in MODULES}  # in the order of a suite


def task_named(name: str) -> Task:
    """UserError where there is none."""
    if name not in TASKS:
        raise UserError(f"task: {name!r} is none of {', '.join(TASKS)}")
    return TASKS[name]


def columns() -> list[Column]:
    """Of the main table, from left to right."""
    found = [column for task in TASKS.values() for column in task.columns]
    return sorted(found, key=lambda column: column.place)


def titles() -> list[str]:
    """Of the columns."""
    return [column.title for column in columns()]
