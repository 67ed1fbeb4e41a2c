"""Programs of this repository, run as its users run them; and faults put into a copy of one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DROPPED = ("RELVLM_KERNELS", "TRITON_INTERPRET", "OUT", "GPU_OUT")


def run(*arguments: object, root: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python ARGUMENTS` in a tree, whose packages are found whatever is installed."""
    paths = [str(root), str(root / "kernels"), *filter(None, sys.path)]
    plain = {k: v for k, v in os.environ.items() if k not in DROPPED and not k.startswith("PYTEST_")}
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=root, capture_output=True, text=True,
        env=plain | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"} | environment,
    )  # fmt: skip


def put_fault(path: Path, right: str, wrong: str) -> None:
    """Puts one text in the place of another, which must be there once."""
    text = path.read_text()
    assert text.count(right) == 1, f"{path}: {text.count(right)} times: {right}"
    path.write_text(text.replace(right, wrong))


def rows_of(out: Path) -> dict[str, list[dict]]:
    """What the GPU check wrote, by stage."""
    rows = defaultdict(list)
    for line in (out / "rows.jsonl").read_text().splitlines():
        row = json.loads(line)
        rows[row["stage"]].append(row)
    return rows
