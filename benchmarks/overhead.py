"""What DeepSpeed's engine, logging and checks add to a plain PyTorch loop on `mini`, all sides in one run.

    relvlm data build relworld --preset mini --images 40000 --out data/relworld
    python benchmarks/overhead.py --json out.json
    python benchmarks/overhead.py --zero 1 --rounds 3

Sides take turns on the same steps of the same data with the same optimizer: `plain` loads, computes, clips, updates;
`engine` does so through DeepSpeed (train_step); `run` is the loop of `relvlm train` with its watchdog, whose rows go to
metrics.csv and TensorBoard every 20 steps. A step is from one call of the loader to the next; starts and the last save
are left out. CPU seconds are of all threads of the process; the machine's other work touches them less than wall
seconds.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from measuring import commit, machine, output_file

from relvlm.config.load import load_config
from relvlm.config.schema import Config
from relvlm.data.batches.loader import Loader, build_loader
from relvlm.data.batches.streams import open_streams
from relvlm.data.batches.worker_signs import WorkerSigns
from relvlm.data.text import Tokenizer
from relvlm.engine import distributed, heartbeat, loop, steps
from relvlm.engine.inputs import RunInputs
from relvlm.engine.run_state import Progress
from relvlm.engine.schedule import build_optimizer, build_scheduler
from relvlm.engine.signals import Told
from relvlm.engine.train_step import train_step
from relvlm.engine.watchdog import Watchdog
from relvlm.plan.flops import Sizes
from relvlm.plan.spent import step_flops
from relvlm.pretrained import relations_of
from relvlm.pretraining.step import Pretraining
from relvlm.ranks import stop

ROOT = Path(__file__).parents[1]
WINDOW = 20  # steps between lines of the log
STEPS = 2 * WINDOW + 1  # of a turn; the last begins what is not timed
SIDES = ("plain", "engine", "run")
CPU = torch.device("cpu")
UNREAD = RunInputs(0, [], [], [], {})  # the loader stands ready


@dataclass
class Marked:
    """A loader that notes when it is asked."""

    loader: Loader
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def __next__(self) -> Any:
        self.wall.append(time.perf_counter())
        self.cpu.append(time.process_time())
        return next(self.loader)

    @property
    def signs(self) -> WorkerSigns:
        return self.loader.signs

    def counts(self) -> dict[str, int]:
        return {}

    def seconds(self) -> dict[str, float]:
        """Of the steps of a turn."""
        return {"wall": self.wall[-1] - self.wall[0], "cpu": self.cpu[-1] - self.cpu[0]}


def main() -> None:
    args = _arguments()
    config = mini(args.data)
    settings = {"zero_optimization": {**distributed.DEFAULT_ZERO, "stage": args.zero}}
    distributed.start(threads=1)
    logging.basicConfig(level=logging.WARNING)
    with tempfile.TemporaryDirectory() as out:
        turns = _turns(replace(config, out=out), settings)
        found = [{side: turns[side](number * 3 * WINDOW) for side in SIDES} for number in range(args.rounds + 1)][1:]
    stop()
    rows = [_row(found, clock) for clock in ("cpu", "wall")]
    about = {"command": sys.argv, "machine": f"{machine(CPU)}, 1 thread, torch {torch.__version__}", "zero": args.zero}
    about |= {"rounds": args.rounds, "steps_a_round": STEPS - 1, "commit": commit()}
    print(f"{about['machine']}; ZeRO-{args.zero}; {args.rounds} rounds of {STEPS - 1} steps; {about['commit']}\n")
    print("| seconds | plain, ms a step | engine | run | engine / plain | run / plain | run / engine |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for row in rows:
        milliseconds = " | ".join(f"{row[side] * 1e3:.1f}" for side in SIDES)
        ratios = " | ".join(f"{row[name]:.3f}" for name in ("engine / plain", "run / plain", "run / engine"))
        print(f"| {row['clock']} | {milliseconds} | {ratios} |")
    if args.json:
        args.json.write_text(json.dumps(about | {"rows": rows}, indent=1) + "\n")


def _row(found: list[dict[str, dict[str, float]]], clock: str) -> dict[str, Any]:
    """Medians over rounds; ratios are taken within a round, which the machine's moods touch alike."""
    row: dict[str, Any] = {"clock": clock}
    row |= {side: median(turn[side][clock] for turn in found) / (STEPS - 1) for side in SIDES}
    for one, other in (("engine", "plain"), ("run", "plain"), ("run", "engine")):
        row[f"{one} / {other}"] = median(turn[one][clock] / turn[other][clock] for turn in found)
    return row


def _turns(config: Config, settings: dict[str, Any]) -> dict[str, Callable[[int], dict[str, float]]]:
    """A turn of each side, from a step on."""
    words, relations = Tokenizer(config.data.vocab_file).vocab_size, relations_of(config)

    def pretraining() -> Pretraining:
        return loop.build_pretraining(config, settings, words, relations, fresh=True)

    engines = [loop._build_engine(pretraining(), config, settings, CPU) for _ in range(2)]
    flops = partial(step_flops, Sizes(config.model, words, len(relations)))
    return {
        "plain": partial(_plain_turn, config, *_plain(config, pretraining())),
        "engine": partial(_engine_turn, config, engines[0]),
        "run": partial(_run_turn, config, engines[1], flops),
    }


def _loader(config: Config, start: int) -> Marked:
    sizes = {"image_size": config.model.image_size, "patch_size": config.model.vision.patch_size}
    return Marked(build_loader(config.data, *open_streams(config.data), **sizes, seed=config.seed, start_step=start))


def _plain(config: Config, model: Pretraining) -> tuple[Pretraining, Any, Any]:
    optimizer = build_optimizer(model.model, config.optim)
    return model, optimizer, build_scheduler(optimizer, config.optim, config.steps)


def _plain_turn(config: Config, model: Pretraining, optimizer: Any, scheduler: Any, start: int) -> dict[str, float]:
    loader = _loader(config, start)
    model.train()
    for _ in range(STEPS):
        (batch,) = next(loader)
        total, _ = model(batch.to(CPU))
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.optim.clip_norm)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    return loader.seconds()


def _engine_turn(config: Config, engine: Any, start: int) -> dict[str, float]:
    loader = _loader(config, start)
    engine.train()
    for _ in range(STEPS):
        train_step(engine, [chunk.to(CPU) for chunk in next(loader)])
    return loader.seconds()


def _run_turn(config: Config, engine: Any, flops: Any, start: int) -> dict[str, float]:
    loader = _loader(config, start)
    steps.build_loader = lambda *_, **__: loader
    out = Path(config.out)
    number = heartbeat.begin(out, f"{start:06d}")
    with Told({}) as told, Watchdog(out, number, config.deadlines) as watch:
        steps.Training(replace(config, steps=start + STEPS), UNREAD, engine, CPU, told, watch, flops).run(
            Progress(start)
        )
    return loader.seconds()


def mini(data: Path) -> Config:
    """`mini` on a RelWorld, without checkpoints within a turn."""
    sets = [f"data.{kind}=[{{path: {data / kind}}}]" for kind in ("captions", "entities")]
    sets += [f"data.graphs=[{{path: {data / 'graphs'}, block: 2}}]", f"data.vocab={data / 'vocab.txt'}"]
    sets += [f"data.relations={data / 'relations.txt'}", f"log_every={WINDOW}", "checkpoint.every=1000000"]
    return load_config(ROOT / "configs/mini/rex_vlm.yaml", [*sets, "checkpoint.keep=1", "steps=100000"])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data/relworld"), help="a RelWorld (data/relworld)")
    parser.add_argument("--zero", type=int, choices=[0, 1, 2, 3], default=0, help="0: what one process takes by itself")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--json", type=output_file)
    return parser.parse_args()


if __name__ == "__main__":
    main()
