"""A run that is broken again and again, and must end as if nothing had happened.

    python -m tests.drill [--faults 100] [--seed 0] [--ranks 2] [--json FILE]

A miniature ReX-VLM is trained twice: unbroken, and with a random fault at a random moment after each start. Each time
the run must end within twice its deadline, in success, with one line of error, or asking to be requeued; and the same
command must go on. In the end every row of metrics.csv and every weight must be those of the unbroken run. Prints a
line a fault and a table; exit status 1 where anything was otherwise. Disks that are full or read-only are made by
mounting a small one, which takes root.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from support.drill_faults import FAULTS, NEED_A_DISK
from support.drilled_run import DEADLINES, EVERY, Drill, finished
from support.launched import ROOT

from relvlm import checkpoints

STEPS_A_FAULT = 30


@contextlib.contextmanager
def disk(folder: Path) -> Iterator[bool]:
    """A small disk of its own for the run, if this user may mount one."""
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256m", "drill", folder], capture_output=True)
    try:
        yield mounted.returncode == 0
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", "-l", str(folder)], check=False)


def made_world(folder: Path, steps: int) -> list[str]:
    """A small RelWorld, and the command that trains on it."""
    build = ["data", "build", "relworld", "--out", str(folder), "--images", "600", "--seed", "1", "--image-size", "32"]
    subprocess.run([sys.executable, "-m", "relvlm.cli", *build], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    data = [f"data.{kind}=[{{path: {folder / kind}}}]" for kind in ("captions", "entities")]
    data += [f"data.graphs=[{{path: {folder / 'graphs'}, block: 2}}]", "data.workers=1", "data.max_faults=100000"]
    data += [f"data.vocab={folder / 'vocab.txt'}", f"data.relations={folder / 'relations.txt'}"]
    sizes = ["data.batch={captions: 8, entities: 8, mrc: 8, vsg: 8}"]
    sizes += ["data.negative_pool={captions: 4, entities: 2, vsg: 4}"]
    saves = [f"steps={steps}", f"checkpoint.every={EVERY}", "checkpoint.keep=4", "log_every=1"]
    deadlines = ", ".join(f"{name}: {value}" for name, value in DEADLINES.items())
    return ["--config", str(ROOT / "configs/mini/rex_vlm.yaml"), *data, *sizes, *saves, f"deadlines={{{deadlines}}}"]


def differences(there: Path, here: Path, steps: int) -> list[str]:
    """What two finished runs differ in."""
    done = subprocess.run(
        [sys.executable, "-m", "relvlm.cli", "compare", str(there), str(here)], cwd=ROOT, capture_output=True, text=True
    )
    found = [done.stdout.strip() or done.stderr.strip()] if done.returncode else []
    models = [path / "checkpoints" / checkpoints.name_of(steps) / "model.safetensors" for path in (there, here)]
    if not all(path.is_file() for path in models) or len({path.read_bytes() for path in models}) > 1:
        found.append("the models are not the same to the bit")
    return found


def run(folder: Path, faults: int, seed: int, ranks: int) -> dict[str, object]:
    """Both runs; what was found."""
    steps = EVERY + STEPS_A_FAULT * faults
    command = made_world(folder / "world", steps)
    unbroken = Drill(folder / "unbroken", command, ranks, steps, random.Random(0))
    unbroken.finish("unbroken")
    assert not unbroken.wrong, unbroken.wrong
    with disk(folder / "disk") as own_disk:
        drill = Drill(folder / "disk/run", command, ranks, steps, random.Random(seed))
        possible = [name for name in FAULTS if own_disk or name not in NEED_A_DISK]
        met: Counter[str] = Counter()
        while sum(met.values()) < faults:
            name = drill.random.choice(possible)
            met[name] += 1
            began, wrong = time.monotonic(), len(drill.wrong)
            if finished(drill):  # the run is over: begin it again
                check(drill, unbroken)
                shutil.rmtree(drill.out)
            FAULTS[name](drill)
            report(drill, sum(met.values()), name, time.monotonic() - began, wrong)
        drill.finish("the end")
        check(drill, unbroken)
    return {"faults": dict(met), "wrong": drill.wrong, "most_steps_lost": max(drill.steps_lost, default=0)}


def check(drill: Drill, unbroken: Drill) -> None:
    drill.wrong.extend(f"the end: {each}" for each in differences(unbroken.out, drill.out, drill.steps))


def report(drill: Drill, count: int, name: str, seconds: float, wrong: int) -> None:
    state = "; ".join(drill.wrong[wrong:]) or "as it should"
    print(f"{count:4d} {name:18s} {seconds:5.1f} s, {drill.done()} steps done: {state}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write what was found")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="drill-") as folder:
        found = run(Path(folder), arguments.faults, arguments.seed, arguments.ranks)
    print(json.dumps(found, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(vars(arguments) | found, indent=1, default=str) + "\n")
    return int(bool(found["wrong"]))


if __name__ == "__main__":
    sys.exit(main())
