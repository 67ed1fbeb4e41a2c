"""Training step: ours against the official codes' way, forward + backward + optimizer, all sides in one run.

    python benchmarks/train_step.py                                  # mini and mid, every kind of batch
    python benchmarks/train_step.py --size base --kinds captions entities --repeats 3 --json out.json
    python benchmarks/train_step.py --device cuda --dtype bf16 --size base --images 64
    python benchmarks/train_step.py --size mid --waterfall           # what each saving brings, one after another
    python benchmarks/train_step.py --size mid --patch-keep 0.5      # also ours on half of the patches: not exact
    python benchmarks/train_step.py --threads 1 --cpu-seconds        # on a machine that has other work

The official way is there twice: with texts padded to the official codes' length, and trimmed to the longest of the
batch. Padded over trimmed is what padding costs; trimmed over ours is what we share, and the rest of the padding.
Losses are compared first. Times are medians of interleaved runs, all sides with the fused AdamW of `relvlm train`;
memory is what autograd keeps for the backward pass, parameters not counted. MFU is against a large matrix product's
FLOP/s, measured between the repeats. The C library keeps freed memory for all sides, as training has it do.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import dropping
import torch
from measuring import commit, gemm_rate, gemm_rate_by, machine, output_file
from stepping import Clock, timed_step
from support.batches import joint_of, made_batch
from support.footprint import kept_bytes
from support.official_way import OfficialWay, longest_text
from torch import Tensor
from train_report import print_row, print_waterfall

from relvlm.config.load import load_config
from relvlm.config.schema import FusionConfig, ModelConfig, OptimConfig, TextConfig
from relvlm.config.vision import ViTConfig
from relvlm.data.batches.batch import Batch
from relvlm.engine.schedule import build_optimizer
from relvlm.kinds import BATCH_KINDS
from relvlm.model import RelVLM
from relvlm.plan.flops import BERT_WORDS, GQA_RELATIONS, TRAINING, Sizes, official, packed
from relvlm.plan.workload import Workload, sections
from relvlm.pretraining.savings import ALL_SAVINGS, Savings
from relvlm.pretraining.step import TEMPERATURE_RANGE, Pretraining
from relvlm_kernels.malloc import keep_freed_memory

Loss = Callable[[], Tensor]
RECIPE = Path(__file__).parents[1] / "configs/13m/rex_vlm.yaml"
SIZES = {  # model, images of a batch
    "toy": (  # for tests
        ModelConfig(
            image_size=32,
            vision=ViTConfig(width=32, layers=2, heads=2, patch_size=8),
            text=TextConfig(layers=2, heads=2, width=32),
            fusion=FusionConfig(layers=2, heads=2),
            mrc_hidden=24,
        ),
        4,
    ),
    "mini": (load_config(RECIPE.parents[1] / "mini/rex_vlm.yaml").model, 32),
    "mid": (
        ModelConfig(
            image_size=192,
            vision=ViTConfig(width=256, layers=6, heads=4),
            text=TextConfig(layers=3, heads=4, width=256),
            fusion=FusionConfig(layers=3, heads=4),
            mrc_hidden=1024,
            itm_head="mlp",
        ),
        8,
    ),
    "base": (load_config(RECIPE).model, 2),
}


def main() -> None:
    args = _arguments()
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    device, dtype = torch.device(args.device), {"fp32": torch.float32, "bf16": torch.bfloat16}[args.dtype]
    on = f"{machine(device)}, {args.threads} threads, torch {torch.__version__}"
    context = {"command": sys.argv, "machine": on, "dtype": args.dtype, "commit": commit()}
    print(f"{on}, {args.dtype}")
    rows, clock = [], time.process_time if args.cpu_seconds else time.perf_counter
    for size in args.size:
        config, images = SIZES[size]
        sizes = Sizes(config, args.words or BERT_WORDS, GQA_RELATIONS)
        torch.manual_seed(0)
        torch.compiler.reset()  # of another size
        model = RelVLM(replace(config, compile=args.compile), sizes.words, sizes.relations)
        step = Pretraining(model).to(device)
        for kind in args.kinds:
            data = load_config(RECIPE).data
            works = [replace(w, images=args.images or images) for w in sections(data, kind)]
            row = measure(step, sizes, works, device, dtype, args.repeats, args.patch_keep, clock)
            rows.append({"size": size, **row, "mfu": row["flops"] / row["seconds"] / row["gemm"]})
            print_row(rows[-1], header=len(rows) == 1)
            if args.waterfall:
                rows[-1]["waterfall"] = waterfall(step, works, device, dtype, args.repeats)
    for row in rows if args.waterfall else []:
        print_waterfall(row)
    dropping.print_table([row for row in rows if "not_exact" in row])
    if args.json:
        args.json.write_text(json.dumps(context | {"rows": rows}, indent=1) + "\n")


def measure(
    step: Pretraining,
    sizes: Sizes,
    works: list[Workload],
    device: torch.device,
    dtype: torch.dtype,
    repeats: int,
    keep: float = 1.0,
    clock: Clock = time.perf_counter,
) -> dict[str, Any]:
    """Times, kept memory and FLOPs of each side on one batch; RuntimeError where their losses differ.

    A joint batch has several `works`, which the official way does one after another, with images of their own. Below
    1, `keep` is the share of the patches in one side more, ours again, which is not exact.
    """
    parts = made_parts(step.model, works, device)
    batch = parts[0] if len(parts) == 1 else joint_of(parts)
    trimmed = [replace(work, padded=longest_text(part)) for work, part in zip(works, parts, strict=True)]
    sides: dict[str, Loss] = {
        "ours": lambda: step(batch).total,
        "official": official_loss(step.model, works, parts),
        "trimmed": official_loss(step.model, trimmed, parts),
    }
    check_equal(step, sides, batch)
    if keep < 1 and not batch.boxed:
        sides["not exact"] = lambda: dropping.loss(step, batch, keep)
    kept = {name: kept_bytes(loss, step, dtype) for name, loss in sides.items()}
    times, gemm = times_of(sides, adamw(step.model), dtype, device, repeats, clock)
    flops = [sum(sum(way(sizes, work).values()) for work in works) for way in (packed, official)]
    flops.append(sum(sum(official(sizes, work).values()) for work in trimmed))
    row = {"kind": batch.kind, "images": batch.images, "seconds": times["ours"]}
    for side, count in zip(("official", "trimmed"), flops[1:], strict=True):
        row[side] = {
            "seconds": times[side],
            "time_ratio": times[side] / times["ours"],
            "flop_ratio": count / flops[0],
            "memory_ratio": kept["ours"] / kept[side],
        }
    row |= {"kept_bytes": kept["ours"], "flops": TRAINING * flops[0], "gemm": gemm}
    if "not exact" in sides:
        row["not_exact"] = dropping.summary(sizes, works, keep, times["not exact"], kept["not exact"])
    return row


def times_of(
    sides: dict[str, Loss],
    optimizer: torch.optim.Optimizer,
    dtype: torch.dtype,
    device: torch.device,
    repeats: int,
    clock: Clock = time.perf_counter,
) -> tuple[dict[str, float], float]:
    """Median seconds of each side's step, and of the matrix product's FLOP/s between the repeats."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    rates = []
    for _ in range(repeats):
        for name, loss in sides.items():
            seconds[name].append(timed_step(loss, optimizer, dtype, device, clock))
        rates.append(gemm_rate(device, dtype, 3) if clock is time.perf_counter else gemm_rate_by(clock))
    return {name: median(values) for name, values in seconds.items()}, median(rates)


def made_parts(model: RelVLM, works: list[Workload], device: torch.device) -> list[Batch]:
    """A batch of each of these, all of the first one's photos."""
    side, size = model.vision.grid[0], model.config.image_size
    made = [made_batch(work, size, side, *_vocabularies(model), seed) for seed, work in enumerate(works)]
    return [replace(part, pixels=made[0].pixels).to(device) for part in made]


def official_loss(model: RelVLM, works: list[Workload], parts: list[Batch]) -> Loss:
    """The official way on these batches, with texts as long as `works` pads them."""
    ways = [OfficialWay(model, work.padded) for work in works]

    def loss() -> Tensor:
        with torch.no_grad():
            model.temperature.clamp_(*TEMPERATURE_RANGE)
        return torch.stack([way(part) for way, part in zip(ways, parts, strict=True)]).sum()

    return loss


def adamw(model: RelVLM) -> torch.optim.Optimizer:
    """That of `relvlm train`, for all sides."""
    return build_optimizer(model, OptimConfig(lr=1e-6))


def waterfall(
    step: Pretraining, works: list[Workload], device: torch.device, dtype: torch.dtype, repeats: int
) -> list[dict[str, Any]]:
    """Seconds and kept memory of the official way, then with one thing more of ours at a time.

    The texts of made batches differ, so that encoding equal ones once brings nothing here.
    """
    parts = made_parts(step.model, works, device)
    batch = parts[0] if len(parts) == 1 else joint_of(parts)
    savings = [field.name for field in fields(Savings)]
    choices = [Savings(**{name: i < count for i, name in enumerate(savings)}) for count in range(len(savings) + 1)]

    def ours(chosen: Savings) -> Tensor:
        step.savings = chosen
        return step(batch).total

    steps = {"official": official_loss(step.model, works, parts)}
    for name, chosen in zip(["no padding", *savings], choices, strict=True):
        steps[name] = partial(ours, chosen)
    seconds, _ = times_of(steps, adamw(step.model), dtype, device, repeats)
    kept = {name: kept_bytes(loss, step, dtype) for name, loss in steps.items()}
    step.savings = ALL_SAVINGS
    return [{"with": name, "seconds": seconds[name], "kept_bytes": kept[name]} for name in steps]


def _vocabularies(model: RelVLM) -> tuple[int, int]:
    """Numbers of words and of relations."""
    assert model.mrc_head is not None
    return model.mlm_head.decoder.out_features, model.mrc_head.second.out_features


def check_equal(step: Pretraining, sides: dict[str, Loss], batch: Batch) -> None:
    """The same loss without dropout and with the same negatives."""
    step.eval()
    losses = {}
    for name, loss in sides.items():
        torch.manual_seed(1)
        with torch.no_grad():
            losses[name] = float(loss())
    step.train()
    for name, loss in losses.items():
        if abs(losses["ours"] - loss) > 1e-3 * abs(loss):
            raise RuntimeError(f"{batch.kind}: our loss is {losses['ours']}, {name}'s {loss}: not comparable")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", nargs="+", choices=SIZES, default=["mini", "mid"])
    parser.add_argument("--kinds", nargs="+", choices=BATCH_KINDS, default=list(BATCH_KINDS))
    parser.add_argument("--images", type=int, default=0, help="images of a batch (0: by size)")
    parser.add_argument("--words", type=int, default=0, help="size of the vocabulary (0: BERT's)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cpu-seconds", action="store_true", help="those of the process; on a CPU, in fp32")
    parser.add_argument("--waterfall", action="store_true", help="also one saving after another")
    parser.add_argument("--patch-keep", type=float, default=1.0, help="not exact: also on this share of the patches")
    parser.add_argument(
        "--compile",
        action="store_true",
        help="ours with model.compile; it reaches every side's vision encoder",
    )
    parser.add_argument("--json", type=output_file, help="also write the figures there")
    return parser.parse_args()


if __name__ == "__main__":
    main()
