"""What a checkpoint costs a run: steps with a save beside as many without one, taking turns in one run.

    relvlm data build relworld --preset mini --images 40000 --out data/relworld
    python benchmarks/saving.py --json out.json
    python benchmarks/saving.py --size base --rounds 3

The state is copied between two steps and written beside the steps that follow; what is timed begins before the copy
and ends when the checkpoint is whole and as many steps are made as without it. `base` is the recipe's model
(ViT-B, batches of 8). A save every 10 minutes is what the last column is of.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from measuring import commit, machine, output_file
from overhead import CPU, ROOT, mini

from relvlm import checkpoints
from relvlm.config.load import load_config
from relvlm.config.schema import Config
from relvlm.data.batches.loader import build_loader
from relvlm.data.batches.streams import open_streams
from relvlm.data.text import Tokenizer
from relvlm.engine import distributed, loop
from relvlm.engine.run_state import Progress
from relvlm.engine.saver import Saver
from relvlm.engine.train_step import train_step
from relvlm.pretrained import relations_of
from relvlm.ranks import stop

EVERY_S = 600.0
SETTINGS = {"zero_optimization": {**distributed.DEFAULT_ZERO, "stage": 0}}


def main() -> None:
    args = _arguments()
    distributed.start(threads=1)
    with tempfile.TemporaryDirectory(dir=args.out) as out:
        config = replace(_config(args.data, args.size), out=out)
        turn = _turns(config, args.steps)
        found = [{save: turn(save) for save in (False, True)} for _ in range(args.rounds + 1)][1:]
        size = sum(path.stat().st_size for path in checkpoints.saved(Path(out) / "checkpoints")[-1].iterdir())
    stop()
    about = {"command": sys.argv, "machine": f"{machine(CPU)}, 1 thread, torch {torch.__version__}", "commit": commit()}
    about |= {"size": args.size, "rounds": args.rounds, "steps": args.steps, "checkpoint_bytes": size}
    rows = [_row(found, clock) for clock in ("cpu", "wall")]
    print(f"{about['machine']}; {args.size}: {size / 1e6:.0f} MB; {args.rounds} rounds; {about['commit']}\n")
    print("| seconds | of the steps | with a save | a save | of 10 minutes |\n|---|---:|---:|---:|---:|")
    for row in rows:
        print("| {clock} | {plain:.2f} | {saved:.2f} | {cost:.2f} | {share:.2%} |".format(**row))
    if args.json:
        args.json.write_text(json.dumps(about | {"rows": rows}, indent=1) + "\n")


def _row(found: list[dict[bool, dict[str, float]]], clock: str) -> dict[str, Any]:
    """Medians over rounds, of differences within a round."""
    cost = median(each[True][clock] - each[False][clock] for each in found)
    plain, saved = (median(each[save][clock] for each in found) for save in (False, True))
    return {"clock": clock, "plain": plain, "saved": saved, "cost": cost, "share": cost / EVERY_S}


def _turns(config: Config, steps: int) -> Callable[[bool], dict[str, float]]:
    """The same steps, with a save that begins before them or without one; seconds of both clocks."""
    words, relations = Tokenizer(config.data.vocab_file).vocab_size, relations_of(config)
    model = loop.build_pretraining(config, SETTINGS, words, relations, fresh=True)
    engine = loop._build_engine(model, config, SETTINGS, CPU)
    patch = config.model.image_size // engine.module.model.vision.grid[0]
    sets = open_streams(config.data)
    loader = build_loader(config.data, *sets, image_size=config.model.image_size, patch_size=patch, seed=config.seed)
    chunks = [[chunk.to(CPU) for chunk in next(loader)] for _ in range(steps)]
    folder = Path(config.out) / "checkpoints"
    saver, count = Saver(folder, config, folder / checkpoints.name_of(0)), itertools.count(1)
    engine.train()

    def turn(save: bool) -> dict[str, float]:
        wall, cpu = time.perf_counter(), time.process_time()
        if save:
            saver.save(engine, Progress(next(count)))
        for each in chunks:
            train_step(engine, each)
        saver.wait()
        return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}

    return turn


def _config(data: Path, size: str) -> Config:
    config = mini(data)
    if size == "mini":
        return config
    model = load_config(ROOT / "configs/13m/rex_vlm.yaml").model
    batch = replace(config.data.batch, captions=8, entities=8, mrc=8, vsg=8)
    return replace(config, model=model, data=replace(config.data, batch=batch))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data/relworld"), help="a RelWorld (data/relworld)")
    parser.add_argument("--size", choices=["mini", "base"], default="mini", help="of the model (mini)")
    parser.add_argument("--steps", type=int, default=40, help="of a turn: as many as the save takes, or more (40)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="a folder on the disk that is meant (the one of temporary files)")
    parser.add_argument("--json", type=output_file)
    return parser.parse_args()


if __name__ == "__main__":
    main()
