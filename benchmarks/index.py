"""The index of a shard set: what it costs to open, what one loader worker of many loses, what an epoch's turn costs.

    python benchmarks/index.py --photos ../shared/data/coco_cc/images --json benchmarks/results/index.json

Times are CPU times of one process, sides interleaved, medians. The set is `--shards` shards of 1,000 captioned photos
of 256 px (one tar under as many names: what is measured is neither disk nor page cache). `one of 192` reads its 8
images of each step of 1,536: each shard is met by all 192, as by the workers of 32 ranks with 6 each.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from statistics import median

from measuring import commit, machine, output_file
from PIL import Image

from relvlm.config.schema import DataConfig, DatasetConfig, KindCounts, KindRatios, NegativePools
from relvlm.data.batches.loader import build_loader
from relvlm.data.batches.sampler import BatchPlan, Stream
from relvlm.data.batches.streams import open_streams
from relvlm.data.shards.index import ShardIndex, index_name
from relvlm.data.shards.manifest import MANIFEST, Tally, make_manifest
from relvlm.data.shards.schema import Sample
from relvlm.data.shards.shard_file import write_shard
from relvlm.data.shards.tar_walk import scan_members

WORKERS, BATCH, SHARD = 192, 8, 1000
CC12M = (1000,) * 11_200  # records of the largest set's shards


def write_set(out: Path, photos: Path, shards: int) -> None:
    """Shards that differ in nothing but their names."""
    out.mkdir()
    files = sorted(photos.glob("*.jpg"))
    images = [encoded(file) for file in files]
    toys = [(f"{n}", images[n % len(images)], sample(n, images[n % len(images)])) for n in range(SHARD)]
    first = write_shard(out / "000000.tar", toys)
    entries = [replace(first, name=f"{number:06d}.tar") for number in range(shards)]
    for entry in entries[1:]:
        os.link(out / first.name, out / entry.name)
        os.link(out / index_name(first.name), out / index_name(entry.name))
    tally = Tally(samples=SHARD * shards)
    (out / MANIFEST).write_text(json.dumps(make_manifest(entries, tally, source="photos", builder_args={})))


def encoded(file: Path) -> bytes:
    stream = io.BytesIO()
    image = Image.open(file).convert("RGB")
    image.thumbnail((256, 256))
    image.save(stream, "JPEG", quality=90)
    return stream.getvalue()


def sample(number: int, image: bytes) -> Sample:
    width, height = Image.open(io.BytesIO(image)).size
    return Sample(str(number), width, height, "photos", (f"a photo, number {number}",))


def cpu_ms(action: Callable[[], object]) -> float:
    start = time.process_time()
    action()
    return 1e3 * (time.process_time() - start)


def opening(folder: Path, repeats: int) -> dict[str, float]:
    """Microseconds a record: an index opened and checked, a tar walked; bytes of its row."""
    tar = folder / "000000.tar"
    entry = json.loads((folder / MANIFEST).read_bytes())["shards"][0]
    times: dict[str, list[float]] = {"index": [], "walk": []}
    for _ in range(repeats):
        times["index"].append(cpu_ms(lambda: ShardIndex(folder / index_name(tar.name), entry["index"], SHARD)))
        times["walk"].append(cpu_ms(lambda: scan_members(tar)))
    index = ShardIndex(folder / index_name(tar.name), entry["index"], SHARD)
    return {f"{side}_us": 1e3 * median(found) / SHARD for side, found in times.items()} | {
        "bytes": index.rows.nbytes / SHARD
    }


def data_config(folder: Path, vocab: Path, workers: int) -> DataConfig:
    vocab.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "photo", "number"]))
    return DataConfig(
        vocab=str(vocab),
        captions=[DatasetConfig(str(folder))],
        batch=KindCounts(captions=BATCH * workers),
        negative_pool=NegativePools(captions=BATCH),
        ratio=KindRatios(captions=1),
        crop_scale=0.2,
        flip=0.5,
    )


def one_of_many(configs: dict[int, DataConfig], steps: int, repeats: int) -> dict[str, float]:
    """Images per CPU second of one loader alone, and of one of 192; and their ratio."""
    rates: dict[int, list[float]] = {workers: [] for workers in configs}
    for turn in range(repeats):
        for workers, config in configs.items():
            streams, sets = open_streams(config)
            loader = build_loader(
                config, streams, sets, image_size=224, patch_size=16, seed=turn, rank=workers // 2, world_size=workers
            )
            dataset = loader._dataset  # what a worker does; the plan is made in the main process
            plans = list(islice(BatchPlan(streams, turn, 0, workers // 2, workers), steps + 1))
            dataset[plans.pop()]  # tokenizer and relations are read
            took = cpu_ms(lambda dataset=dataset, plans=plans: [dataset[plan] for plan in plans])
            rates[workers].append(1e3 * BATCH * steps / took)
    alone, many = (median(found) for found in rates.values())
    return {"alone": alone, f"one_of_{WORKERS}": many, "ratio": many / alone}


def memory(config: DataConfig, counts: tuple[int, int]) -> dict[str, float]:
    """MB resident after one worker of 192 has read (not decoded) so many records."""
    streams, (usable,) = open_streams(config)
    plans = iter(BatchPlan(streams, 0, rank=WORKERS // 2, world_size=WORKERS))
    read, found = 0, {}
    for count in counts:
        while read < count:
            for number in next(plans).index.tolist():
                usable.read(usable.index(number))
                read += 1
        found[f"at_{count}"] = resident_mb()
    return found | {"growth": found[f"at_{counts[1]}"] - found[f"at_{counts[0]}"]}


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def turns(repeats: int) -> dict[str, float]:
    """Milliseconds of a plan over 11.2M records: the longest step at an epoch's turn; the first one, early and late."""
    stream = Stream("captions", "captions/0", CC12M, 1024, 1.0)
    last = sum(CC12M) // stream.images
    found: dict[str, list[float]] = {"turn": [], "start": [], "start_at_90%": []}
    for seed in range(repeats):
        plans = iter(BatchPlan([stream], seed, last - 20))
        next(plans)
        found["turn"].append(max(cpu_ms(lambda p=plans: next(p)) for _ in range(40)))
        for name, step in (("start", 0), ("start_at_90%", round(0.9 * last))):
            found[name].append(cpu_ms(lambda s=step, r=seed: next(iter(BatchPlan([stream], r, s)))))
    return {name: median(each) for name, each in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True, help="folder of JPEGs")
    parser.add_argument("--shards", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=100, help="of 8 images, a side and repeat")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=output_file)
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    try:
        write_set(folder / "set", args.photos, args.shards)
        configs = {n: data_config(folder / "set", folder / "vocab.txt", n) for n in (1, WORKERS)}
        rows = {  # memory first: what others leave free would hide a growth
            "memory": memory(configs[WORKERS], (10_000, 100_000)),
            "opening": opening(folder / "set", 3 * args.repeats),
            "worker": one_of_many(configs, args.steps, args.repeats),
            "epoch": turns(args.repeats),
        }
    finally:
        shutil.rmtree(folder)
    import torch

    about = {"machine": machine(torch.device("cpu")), "commit": commit(), "shards": args.shards}
    for name, row in rows.items():
        print(f"{name:8}", ", ".join(f"{key} {value:.3g}" for key, value in row.items()))
    if args.json:
        args.json.write_text(json.dumps({"about": about, **rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
