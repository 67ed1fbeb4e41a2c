"""The columns of metrics.csv: what each measures, and which are clocks, that differ between any two runs.

docs/what_a_run_shows.md says what each means. No torch here: commands that only read a log start at once.
"""

from __future__ import annotations

import dataclasses

from relvlm.config.schema import DataConfig
from relvlm.kinds import KINDS

# Of a step, one after the other without a gap: their seconds come to those of the step.
PHASES = ("data", "forward", "backward", "optimizer", "communication", "logging", "saving", "evaluation", "other")
SECONDS = ("step_s", *(f"{phase}_s" for phase in PHASES))
CLOCKS = ("samples_per_s", "tokens_per_s", "mfu", "memory_gb", *SECONDS)
HEAD = ("step", "dataset", "samples_hash", "lr", "skipped", "skipped_so_far", "spike", "grad_norm", *CLOCKS)
WORDS = ("dataset", "samples_hash")  # no numbers


def objectives(data: DataConfig) -> list[str]:
    """Names of all values that a run of this data logs: KIND/OBJECTIVE, or joint/KIND/OBJECTIVE."""
    weights = dataclasses.asdict(data.joint_weights)
    known: dict[str, list[str]] = {kind: row.values for kind, row in KINDS.items()}
    known["joint"] = [f"{kind}/{name}" for kind, names in known.items() if weights[kind] for name in names]
    return [f"{kind}/{name}" for kind in known if kind in data.drawn for name in known[kind]]


def columns(data: DataConfig) -> list[str]:
    """All columns of a run of this data, in their order."""
    return [*HEAD, *objectives(data)]
