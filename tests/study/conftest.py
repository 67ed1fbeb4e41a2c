"""A small study: its plan as a file, and results as its runs would leave them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from relvlm.study.plan import Plan, read_plan

PLAN = """
name: toy
out: {here}/runs
results: {here}/results
suite: {here}/suite
seeds: [3, 5]
arms:
  - {{name: X-VLM, config: configs/mini/xvlm.yaml}}
  - {{name: ReX-VLM, config: configs/mini/rex_vlm.yaml, set: [optim.lr=1e-3]}}
budgets: [{{name: steps, steps: 10}}]
compare: [[X-VLM, ReX-VLM]]
evaluations: 3
"""


@pytest.fixture
def plan_file(tmp_path: Path) -> Path:
    path = tmp_path / "plan.yaml"
    path.write_text(PLAN.format(here=tmp_path))
    return path


@pytest.fixture
def plan(plan_file: Path) -> Plan:
    return read_plan(plan_file)


@pytest.fixture
def keep(plan: Plan) -> Callable[..., Path]:
    """Write one run's result: VSR and, if given, SVO, with curves of two steps."""

    def write(arm: str, seed: int, vsr: float, svo: float | None = None) -> Path:
        values = {"VSR": vsr} | ({} if svo is None else {"SVO": svo})
        figures = {
            title: {"value": value, "interval": [value - 2, value + 2], "chance": 50.0, "n": 9}
            for title, value in values.items()
        }
        curves = {title: [[5, 50.0], [10, value]] for title, value in values.items()}
        path = Path(plan.results) / "runs" / f"steps-{arm}-{seed}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        known = {"budget": "steps", "arm": arm, "seed": seed, "steps": 10, "images": 640, "tflop": 0.5, "hours": 0.25}
        path.write_text(json.dumps(known | {"machine": "here", "digest": "d", "figures": figures, "curves": curves}))
        return path

    return write
