"""The plan of a study: which arms, with which seeds, for how long, judged by what. A YAML file (configs/study/)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

from relvlm.config.ranges import NAME, PATH, Length, Range
from relvlm.config.tree import build, read_tree
from relvlm.errors import UserError

SEED = Range(0, 2**31 - 1)
AMOUNT = Range(0, 1e30)


def slug(name: str) -> str:
    """A name as a folder's."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


@dataclass(frozen=True)
class Arm:
    """One way to train: a config, and what of it is set otherwise."""

    name: Annotated[str, "in tables; its folder is named after it", NAME]
    config: Annotated[str, "YAML, e.g. configs/mini/albef.yaml", PATH]
    set: Annotated[list[str], "dotted.key=value", Length(0, 100, NAME)] = field(default_factory=list)
    after: Annotated[str, "another arm, from whose run of the same seed it goes on; none: from anew"] = ""
    share: Annotated[float, "of the budget: how long it is trained", Range(0, 1, above=True)] = 1.0
    suite: Annotated[str, "folder of benchmarks, where not the plan's", PATH] = ""


@dataclass(frozen=True)
class World:
    """A RelWorld that is built where it is not there yet."""

    path: Annotated[str, "its folder", PATH]
    flags: Annotated[list[str], "of `relvlm data build relworld`", Length(0, 100, NAME)] = field(default_factory=list)


@dataclass(frozen=True)
class Related:
    """A shard set with relations by machine, made where it is not there yet, after the worlds."""

    path: Annotated[str, "its folder", PATH]
    source: Annotated[str, "shard set with boxes", PATH]
    flags: Annotated[list[str], "of `relvlm data relate`", Length(0, 100, NAME)] = field(default_factory=list)


@dataclass(frozen=True)
class Folds:
    """Real photographs to cross-validate over: COCO's files, cut into folds, one for each seed (study/folds.py)."""

    path: Annotated[str, "folder of the folds, fold_0, fold_1, ...", PATH]
    images: Annotated[str, "folder of photographs", PATH]
    captions: Annotated[str, "captions_*.json", PATH]
    instances: Annotated[str, "instances_*.json", PATH]
    sugarcrepe: Annotated[str, "folder of SugarCrepe's files about these photographs", PATH]
    count: Annotated[int, "of the folds", Range(2, 1000)] = 5


@dataclass(frozen=True)
class Budget:
    """For how long every arm is trained: optimizer steps, images seen, or FLOPs; one of the three."""

    name: Annotated[str, "in tables; a folder is named after it", NAME]
    steps: Annotated[int, "optimizer steps", AMOUNT] = 0
    images: Annotated[float, "images seen, each time that one is seen", AMOUNT] = 0
    tflop: Annotated[float, "10^12 floating-point operations, as relvlm plan counts them", AMOUNT] = 0


@dataclass(frozen=True)
class Plan:
    """A study. Every arm is trained with every seed at every budget; each run is one `relvlm train`.

    `{seed}` in a suite or in what is set stands for the seed, so that each seed may have data of its own.
    """

    name: Annotated[str, "of the study", NAME]
    out: Annotated[str, "folder of the runs", PATH]
    results: Annotated[str, "folder of what is kept: a JSON of each run, which plans with equal arms share", PATH]
    suite: Annotated[str, "folder of benchmarks, as of `relvlm eval --suite`", PATH]
    arms: Annotated[list[Arm], "ways to train"]
    budgets: Annotated[list[Budget], "how long"]
    seeds: Annotated[list[int], "one run each", Length(1, 1000, SEED)]
    figures: Annotated[list[str], "of the tables and plots, e.g. `VSR test`; none: all", Length(0, 100, NAME)] = field(
        default_factory=list
    )
    compare: Annotated[list[list[str]], "pairs of arms: is the second better than the first?"] = field(
        default_factory=list
    )
    report: Annotated[str, "folder of tables and plots, where not that of the results", PATH] = ""
    worlds: Annotated[list[World], "built before the first run"] = field(default_factory=list)
    related: Annotated[list[Related], "made before the first run"] = field(default_factory=list)
    folds: Annotated[list[Folds], "built before the first run"] = field(default_factory=list)
    evaluations: Annotated[int, "of a run, at equal distances; the last one counts", Range(1, 1000)] = 8
    set: Annotated[list[str], "dotted.key=value of every arm", Length(0, 100, NAME)] = field(default_factory=list)


def smoke(plan: Plan) -> Plan:
    """The same study in minutes: two seeds, a few steps, few examples; its figures mean nothing."""
    little = ["eval.limit=16", "optim.warmup_steps=2"]
    # A phase of small images must end within the few steps.
    short = re.compile(r"(low_resolution\.steps)=.*")
    arms = [replace(arm, set=[short.sub(r"\1=6", each) for each in arm.set]) for arm in plan.arms]
    return replace(
        plan,
        arms=arms,
        out=f"{plan.out}-smoke",
        results=f"{plan.out}-smoke/results",
        report="",
        seeds=plan.seeds[:2],
        budgets=[Budget("smoke", steps=12)],
        evaluations=2,
        set=[*plan.set, *little],
    )


def read_plan(path: Path) -> Plan:
    """Raises UserError with all that is wrong with the file."""
    plan = build(Plan, read_tree(path), str(path), "")
    faults = [f"{path}: {fault}" for fault in _faults(plan)]
    if faults:
        raise UserError("\n".join(faults))
    return plan


def _faults(plan: Plan) -> list[str]:
    found = []
    for what in ("arms", "budgets"):
        named = [each.name for each in getattr(plan, what)]
        slugs = [slug(name) for name in named]
        if not named:
            found.append(f"{what}: empty")
        elif len(set(slugs)) < len(slugs) or "" in slugs:
            found.append(f"{what}: {', '.join(named)}: each needs a folder of its own (give another name)")
    if len(set(plan.seeds)) < len(plan.seeds):
        found.append(f"seeds: {plan.seeds}: each once")
    for place, budget in enumerate(plan.budgets):
        if sum(bool(amount) for amount in (budget.steps, budget.images, budget.tflop)) != 1:
            found.append(f"budgets[{place}]: give one of steps, images, tflop")
    arms = {arm.name: arm for arm in plan.arms}
    for arm in plan.arms:
        if arm.after and (arm.after not in arms or arms[arm.after].after):
            alone = ", ".join(name for name, other in arms.items() if not other.after)
            found.append(f"arms: {arm.name}: after: {arm.after!r}: not an arm that is trained from anew ({alone})")
    for place, pair in enumerate(plan.compare):
        if len(set(pair)) != 2 or not set(pair) <= set(arms):
            found.append(f"compare[{place}]: {pair}: not two of {', '.join(arms)}")
    return found
