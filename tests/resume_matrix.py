"""Checkpoints of {1, 2, 4} ranks x ZeRO {0..3} x {fp32, bf16} x {no teacher, teacher}, each loaded by each.

    python tests/resume_matrix.py [--all] [--out FOLDER]

Prints a row for each pair of worlds: how many checkpoints were loaded, and whether weights, moments and updates came
out bit for bit, and, with the same ranks, stage and dtype, the steps that follow too. Without --all a covering set.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp

sys.path.insert(0, str(Path(__file__).parent))

from support.batches import made_batch
from toys import RELATIONS, TAUGHT, VIT, WORDS

from relvlm import checkpoints, ranks
from relvlm.config.schema import CheckpointConfig, Config, DataConfig, OptimConfig
from relvlm.engine import distributed, run_state, state_files
from relvlm.engine.saver import Saver
from relvlm.engine.schedule import build_optimizer, build_scheduler, keep_settings, settings_of
from relvlm.engine.train_step import train_step
from relvlm.model import RelVLM
from relvlm.plan.workload import Workload
from relvlm.pretrained import read_tensors
from relvlm.pretraining.means import Ranks
from relvlm.pretraining.step import Pretraining

WORLDS, STAGES, DTYPES = (1, 2, 4), (0, 1, 2, 3), ("fp32", "bf16")
STEPS, SAVED = 5, 3
WORK = Workload("captions", 4, 1, 5, 8, masked=2)


@dataclass(frozen=True)
class Setting:
    """How a checkpoint is made or loaded."""

    world: int
    stage: int
    dtype: str
    teacher: bool

    @property
    def name(self) -> str:
        return f"{self.world}-zero{self.stage}-{self.dtype}-{'taught' if self.teacher else 'alone'}"


def settings(world: int, everything: bool) -> list[Setting]:
    """All of a world, or a few in which every stage, dtype and teacher is met."""
    found = [
        Setting(world, *each)
        for each in itertools.product(STAGES, DTYPES, (False, True))
        if not (each[0] == 3 and each[2])  # refused: the teacher needs whole parameters
    ]
    few = {(0, "fp32", True), (1, "bf16", True), (2, "bf16", False), (3, "fp32", False)}
    return [s for s in found if everything or (s.stage, s.dtype, s.teacher) in few]


def config_of(setting: Setting, out: Path) -> Config:
    (out / "vocab.txt").write_text("\n".join(f"w{i}" for i in range(WORDS)))
    (out / "relations.txt").write_text("\n".join(f"r{i}" for i in range(RELATIONS)))
    return Config(
        out=str(out), dtype=setting.dtype, model=TAUGHT if setting.teacher else VIT,
        data=DataConfig(vocab=str(out / "vocab.txt"), relations=str(out / "relations.txt")),
        optim=OptimConfig(lr=1e-2, warmup_steps=2, clip_norm=1.0), checkpoint=CheckpointConfig(keep=0),
    )  # fmt: skip


def made_engine(setting: Setting, config: Config) -> Any:
    torch.manual_seed(0)
    pretraining = Pretraining(
        RelVLM(config.model, WORDS, RELATIONS), Ranks(ranks.world_size(), ranks.gather_rows, ranks.sum_over_ranks)
    )
    optimizer = build_optimizer(pretraining.model, config.optim)
    zero = {"stage": setting.stage, "stage3_param_persistence_threshold": 300}  # both kinds of parameters
    scheduler = build_scheduler(optimizer, config.optim, 10)
    engine = distributed.initialize(pretraining, optimizer, scheduler, config, {"zero_optimization": zero})
    engine.train()
    return engine


def train(engine: Any, first: int, last: int) -> list[float]:
    """Losses of a rank's steps."""
    found = []
    for step in range(first, last + 1):
        run_state.seed_step(0, step)
        batch = made_batch(WORK, 32, 4, WORDS, RELATIONS, 100 * step + ranks.rank())
        values = train_step(engine, [batch]).values
        found.append(values["itc"].item() + values["itm"].item())
    return found


def save(engine: Any, config: Config, step: int) -> Path:
    folder = Path(config.out) / "checkpoints"
    saver = Saver(folder, config, folder)
    saver.save(engine, run_state.Progress(step))
    return saver.wait()


def make_worker(rank: int, world: int, port: int, out: Path, everything: bool) -> None:
    """Train, save, train on; the losses and the end are what a resumed run is held to."""
    start(rank, world, port)
    for setting in settings(world, everything):
        config = config_of(setting, folder_of(out, setting))
        engine = made_engine(setting, config)
        train(engine, 1, SAVED)
        save(engine, config, SAVED)
        losses = train(engine, SAVED + 1, STEPS)
        save(engine, config, STEPS)
        (Path(config.out) / f"losses_{rank}.json").write_text(json.dumps(losses))
    ranks.stop()


def load_worker(rank: int, world: int, port: int, out: Path, everything: bool, worlds: Sequence[int] = WORLDS) -> None:
    """Load every checkpoint in every way, and say what was not as it should be."""
    start(rank, world, port)
    rows = []
    for here in settings(world, everything):  # ZeRO 3 last: it changes F.linear of its process for good
        for there in (s for w in worlds for s in settings(w, everything) if s.teacher == here.teacher):
            found = resumed(out, there, here)
            if rank == 0:
                rows.append({"there": asdict(there), "here": asdict(here), "fault": found})
    if rank == 0:
        (out / f"loaded_{world}.json").write_text(json.dumps(rows))
    ranks.stop()


def resumed(out: Path, there: Setting, here: Setting) -> str:
    """What is wrong with a run that goes on from the checkpoint; empty where nothing is."""
    source, own = folder_of(out, there), out / f"again-{here.world}"
    if ranks.rank() == 0:
        shutil.rmtree(own, ignore_errors=True)
        own.mkdir()
    ranks.barrier()
    config = config_of(here, own)
    engine = made_engine(here, config)
    before = source / "checkpoints" / checkpoints.name_of(SAVED)
    given = settings_of(engine.optimizer)
    progress = run_state.restore(engine, before)
    keep_settings(engine.optimizer, engine.lr_scheduler, given)
    fault = "" if progress == run_state.read_progress(before) else f"progress: {progress}"
    if here.dtype == there.dtype:
        fault = fault or same_models(before, save(engine, config, SAVED))
    fault = fault or differing(before, save(engine, config, SAVED), here.dtype)
    if not fault and here == there:
        expected = json.loads((source / f"losses_{ranks.rank()}.json").read_text())
        losses = train(engine, SAVED + 1, STEPS)
        fault = "" if losses == expected else f"losses {losses}, {expected} unbroken"
        after = source / "checkpoints" / checkpoints.name_of(STEPS)
        fault = fault or differing(after, save(engine, config, STEPS), here.dtype)
    return next(filter(None, ranks.gather_objects(fault)), "")


def differing(there: Path, here: Path, dtype: str) -> str:
    """The first tensor of a checkpoint that another has not bit for bit."""
    states = whole_state(there), whole_state(here)
    for name in states[0].keys() | states[1].keys():
        if not all(name in s for s in states) or not torch.equal(states[0][name], states[1][name]):
            return f"state: {name}"
    if run_state.read_progress(there) != run_state.read_progress(here):
        return "progress"
    weights, model = states[0], read_tensors(here / "model.safetensors")
    for name, value in model.items():
        master = weights.get(f"weight:{name}")
        if master is not None and not torch.equal(value.flatten(), master.to(TYPES[dtype]).float()):
            return f"model: {name}"
    teachers = [path / "teacher.pt" for path in (there, here)]
    if teachers[0].exists() and not same(*(torch.load(path, weights_only=True) for path in teachers)):
        return "teacher"
    return ""


def same_models(there: Path, here: Path) -> str:
    """The first tensor in which what two runs compute with differs."""
    found = read_tensors(there / "model.safetensors"), read_tensors(here / "model.safetensors")
    return next((f"model: {name}" for name in found[0] if not torch.equal(found[0][name], found[1][name])), "")


TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def same(there: dict[str, Any], here: dict[str, Any]) -> bool:
    return there.keys() == here.keys() and all(
        torch.equal(v, here[k]) if isinstance(v, torch.Tensor) else v == here[k] for k, v in there.items()
    )


def whole_state(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Every part of every parameter, put together; a piece that is missing or there twice is an error."""
    pieces: dict[str, list[tuple[int, torch.Tensor]]] = {}
    for path in sorted(checkpoint.glob(state_files.PATTERN)):
        for key, value in read_tensors(path).items():
            part, start, name = key.split(":", 2)
            pieces.setdefault(f"{part}:{name}", []).append((int(start), value))
    whole = {}
    for key, found in pieces.items():
        found.sort(key=lambda piece: piece[0])
        ends = list(itertools.accumulate(len(value) for _, value in found))
        assert [start for start, _ in found] == [0, *ends[:-1]], f"{checkpoint}: {key}: a gap or an overlap"
        whole[key] = torch.cat([value for _, value in found])
    return whole


def folder_of(out: Path, setting: Setting) -> Path:
    folder = out / setting.name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def start(rank: int, world: int, port: int) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "CUDA_VISIBLE_DEVICES": ""}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
    distributed.start(threads=1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run(out: Path, everything: bool, worlds: Sequence[int] = WORLDS) -> list[dict[str, Any]]:
    """A row for each checkpoint and each way of loading it."""
    for world in worlds:
        mp.spawn(make_worker, (world, free_port(), out, everything), nprocs=world)
    for world in worlds:
        mp.spawn(load_worker, (world, free_port(), out, everything, worlds), nprocs=world)
    return [row for world in worlds for row in json.loads((out / f"loaded_{world}.json").read_text())]


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: worlds by worlds, how many pairs, how many with a fault."""
    lines = ["| saved by | loaded by | pairs | same to the bit |", "|---|---|---:|---:|"]
    for there, here in itertools.product(WORLDS, WORLDS):
        found = [r for r in rows if r["there"]["world"] == there and r["here"]["world"] == here]
        good = sum(not r["fault"] for r in found)
        lines.append(f"| {there} | {here} | {len(found)} | {good} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="every pair (some minutes)")
    parser.add_argument("--worlds", type=int, nargs="+", default=WORLDS, help="numbers of ranks (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="keep the checkpoints there")
    arguments = parser.parse_args()
    out = arguments.out or Path(tempfile.mkdtemp(prefix="resume-matrix-"))
    out.mkdir(parents=True, exist_ok=True)
    rows = run(out, arguments.all, tuple(arguments.worlds))
    print(table(rows))
    for row in (row for row in rows if row["fault"]):
        print(f"{Setting(**row['there']).name} -> {Setting(**row['here']).name}: {row['fault']}")
    if arguments.out is None:
        shutil.rmtree(out)
    return int(any(row["fault"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
