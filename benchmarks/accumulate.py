"""What a step in chunks keeps in memory, and what it costs: against the same step in one.

    python benchmarks/accumulate.py                                          # base, 8 captions in 1, 2, 4, 8 chunks
    python benchmarks/accumulate.py --size mid --kind entities --images 16 --chunks 2 4
    python benchmarks/accumulate.py --device cuda --dtype bf16 --images 128 --chunks 2 4 8

Losses that chunks do not change are compared first. Times are medians of interleaved runs; memory is what autograd
keeps for the largest backward pass, parameters not counted, and the step's gradients of features.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from statistics import median

import torch
from stepping import timed_step
from support.batches import made_batch
from support.footprint import kept_bytes
from torch import Tensor
from train_step import RECIPE, SIZES

from relvlm.config.load import load_config
from relvlm.data.batches.batch import Batch
from relvlm.kinds import KINDS
from relvlm.model import RelVLM
from relvlm.plan.flops import BERT_WORDS, GQA_RELATIONS
from relvlm.plan.workload import workload
from relvlm.pretraining.chunks import chunks_of
from relvlm.pretraining.step import Pretraining
from relvlm_kernels import Regions
from relvlm_kernels.malloc import keep_freed_memory


def main() -> None:
    args = _arguments()
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    device, dtype = torch.device(args.device), {"fp32": torch.float32, "bf16": torch.bfloat16}[args.dtype]
    torch.manual_seed(0)
    config, _ = SIZES[args.size]
    step = Pretraining(RelVLM(config, BERT_WORDS, GQA_RELATIONS)).to(device)
    optimizer = torch.optim.AdamW(step.parameters(), lr=1e-6)
    for kind in args.kind:
        work = replace(workload(load_config(RECIPE).data, kind), images=args.images)
        side = step.model.vision.grid[0]
        batch = made_batch(work, config.image_size, side, BERT_WORDS, GQA_RELATIONS).to(device)
        steps = {count: split(batch, count) for count in [1, *args.chunks]}
        for chunks in steps.values():
            check_equal(step, batch, chunks)
        print(f"\n{args.size}, {args.images} images of {kind}, {args.dtype}\n")
        print_table(step, steps, optimizer, dtype, device, args.repeats)


def print_table(
    step: Pretraining, steps: dict[int, list[Batch]], optimizer: torch.optim.Optimizer, dtype: torch.dtype,
    device: torch.device, repeats: int,
) -> None:  # fmt: skip
    """A line for each number of chunks."""
    losses = {count: last_loss(step, chunks) for count, chunks in steps.items()}
    seconds: dict[int, list[float]] = {count: [] for count in steps}
    for _ in range(repeats):
        for count, loss in losses.items():
            seconds[count].append(timed_step(loss, optimizer, dtype, device))
    print("| chunks | kept, MiB | of the whole | s | of the whole |\n|---:|---:|---:|---:|---:|")
    kept = {count: kept_by_chunk(step, chunks, dtype) for count, chunks in steps.items()}
    for count in steps:
        time, whole = median(seconds[count]), median(seconds[1])
        memory = f"{kept[count] / 2**20:.2f} | {kept[count] / kept[1]:.0%}"
        print(f"| {count} | {memory} | {time:.2f} | {time / whole:.2f}x |")


def split(batch: Batch, count: int) -> list[Batch]:
    """Nearly equal runs of the images of a batch of one kind."""
    edges = [batch.images * chunk // count for chunk in range(count + 1)]
    return [_run(batch, first, last) for first, last in pairwise(edges)]


def _run(batch: Batch, first: int, last: int) -> Batch:
    regions = batch.regions
    own = (regions.image >= first) & (regions.image < last)
    g0, groups = int(own.int().argmax()), int(own.sum())
    group = slice(g0, g0 + groups)
    t0, t1 = int(regions.offsets[g0]), int(regions.offsets[g0 + groups])
    masked = (batch.mlm_row >= t0) & (batch.mlm_row < t1)
    related, region = own[batch.subject], own[batch.region]
    aligned = slice(t0, t1) if batch.aligned else slice(0)
    return replace(
        batch, pixels=batch.pixels[first:last], image_key=batch.image_key[first:last],
        text_ids=batch.text_ids[t0:t1], region=batch.region[region] - g0, region_patches=None,
        regions=Regions(
            regions.offsets[g0 : g0 + groups + 1] - t0, regions.image[group] - first, regions.box[group],
            regions.prefix[group], regions.mean[group], regions.grid,
        ),
        text_key=batch.text_key[group], target_box=batch.target_box[group],
        mlm_ids=batch.mlm_ids[aligned], mlm_row=batch.mlm_row[masked] - t0, mlm_label=batch.mlm_label[masked],
        subject=batch.subject[related] - g0, object=batch.object[related] - g0, relation=batch.relation[related],
    )  # fmt: skip


def last_loss(step: Pretraining, chunks: list[Batch]) -> Callable[[], Tensor]:
    """The loss of the last chunk, after the backward passes of the others; of one chunk, the whole step's."""

    def loss() -> Tensor:
        if len(chunks) == 1:
            return step(chunks[0]).total
        parts = chunks_of(chunks)
        for batch, chunk in zip(chunks[:-1], parts[:-1], strict=True):
            step(batch, chunk).total.backward()
        return step(chunks[-1], parts[-1]).total

    return loss


def kept_by_chunk(step: Pretraining, chunks: list[Batch], dtype: torch.dtype) -> int:
    """Bytes at the largest chunk's backward pass."""
    if len(chunks) == 1:
        return kept_bytes(lambda: step(chunks[0]).total, step, dtype)
    *_, last = chunks_of(chunks)
    last.step.targets = step.chunk_targets(chunks)
    gradients = [x for target in last.step.targets if target.itc is not None for x in target.itc.features]
    largest = kept_bytes(lambda: step(chunks[-1], last).total, step, dtype)
    return largest + sum(x.nbytes for x in gradients)


@torch.no_grad()
def check_equal(step: Pretraining, batch: Batch, chunks: list[Batch]) -> None:
    """RuntimeError where the chunks' values, but for ITM's, are not the whole step's."""
    if len(chunks) == 1:
        return
    step.eval()
    found = [step(batch, chunk).values for batch, chunk in zip(chunks, chunks_of(chunks), strict=True)]
    for name, value in step(batch).values.items():
        total = sum(float(values[name]) for values in found)
        drawn = name.startswith("itm")  # its pairs are, within a chunk
        if not drawn and abs(total - float(value)) > 1e-3 * abs(float(value)):
            raise RuntimeError(f"{name}: {total} in {len(chunks)} chunks, {float(value)} in one: not comparable")
    step.train()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="base")
    parser.add_argument("--kind", nargs="+", choices=KINDS, default=["captions"])
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--chunks", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
