"""`relvlm score`: the packed engine against one pair at a time, both in one run, on the same photos and texts.

    python benchmarks/score.py                                            # mini and mid
    python benchmarks/score.py --size base --photos 3 --texts 6 --repeats 1

`alone`: `relvlm.score` called for each pair. `public`: the public evaluation scripts' way (`public_way.py`), padded,
each pair from the file. The matrices of all three are compared first. Times are CPU seconds, medians of interleaved
runs, which other work on the machine does not lengthen.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
from eval import SIZES, made_model
from measuring import commit, machine
from PIL import Image
from public_way import PublicWay
from torch import Tensor

import relvlm
from relvlm.config.load import load_config
from relvlm.config.schema import ModelConfig
from relvlm.config.vision import ViTConfig
from relvlm.data.text import Tokenizer
from relvlm.model import RelVLM

LENGTH = 40  # tokens that the public way pads to
TOLERANCE = 1e-5
Run = Callable[[], Tensor]


def main() -> None:
    args = _arguments()
    torch.set_num_threads(args.threads)
    print(
        f"`python benchmarks/score.py {' '.join(sys.argv[1:])}` at {commit()}: {machine(torch.device('cpu'))},", end=" "
    )
    print(f"{args.threads} threads, fp32, torch {torch.__version__}; CPU ms a pair, medians of {args.repeats}\n")
    print("| size | photos x texts | score | alone | public | against alone | against public | differ by |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        for size in args.size:
            model, tokenizer = made_model(config_of(size), Path(folder))
            model.tokenizer = tokenizer
            photos, texts = inputs(args.photos, args.texts, Path(folder))
            print(row(size, model, tokenizer, photos, texts, args.repeats), flush=True)


def row(size: str, model: RelVLM, tokenizer: Tokenizer, photos: list[Path], texts: list[str], repeats: int) -> str:
    """A line of the table; RuntimeError where the ways differ in what they compute."""
    public = PublicWay(model, tokenizer, LENGTH)
    ways: dict[str, Run] = {
        "score": lambda: relvlm.score(model, photos, texts),
        "alone": lambda: torch.tensor([[relvlm.score(model, [p], [t]).item() for t in texts] for p in photos]),
        "public": lambda: torch.tensor([[public.probability(p, t) for t in texts] for p in photos]),
    }
    with torch.inference_mode():
        first = {name: way() for name, way in ways.items()}  # warms up, too
        worst = max(float((first["score"] - found).abs().max()) for found in first.values())
        if worst > TOLERANCE:
            raise RuntimeError(f"{size}: the ways differ by {worst:.1e}: they are not comparable")
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(repeats):
            for name, way in ways.items():
                began = time.process_time()
                way()
                times[name].append(time.process_time() - began)
    pairs = len(photos) * len(texts)
    ours, alone, others = (1e3 * median(times[name]) / pairs for name in ways)
    return (
        f"| {size} | {len(photos)} x {len(texts)} | {ours:.2f} | {alone:.2f} | {others:.2f} | {alone / ours:.1f}x | "
        f"{others / ours:.1f}x | {worst:.0e} |"
    )


def config_of(size: str) -> ModelConfig:
    """Of a size of `eval.py`, or `mid`: 224 px and a ViT a third as wide, with the text encoder to match."""
    if size != "mid":
        return load_config(SIZES[size]).model
    base = load_config(SIZES["base"]).model
    vision = ViTConfig(width=256, layers=6, heads=4, patch_size=16)
    text = replace(base.text, width=256, layers=3, heads=4)
    return replace(base, vision=vision, text=text, fusion=replace(base.fusion, layers=3, heads=4))


def inputs(photos: int, texts: int, folder: Path) -> tuple[list[Path], list[str]]:
    """Photos of 640 x 480 as JPEG, and captions of 6 to 14 made-up words."""
    rng = random.Random(0)
    paths = [folder / f"{i}.jpg" for i in range(photos)]
    for path in paths:
        small = Image.frombytes("RGB", (20, 15), rng.randbytes(900))
        small.resize((640, 480), Image.Resampling.BICUBIC).save(path)
    words = (folder / "vocab.txt").read_text().split()[5:900]
    return paths, [" ".join(rng.choices(words, k=rng.randint(6, 14))) for _ in range(texts)]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", nargs="+", choices=[*SIZES, "mid"], default=["mini", "mid"])
    parser.add_argument("--photos", type=int, default=8)
    parser.add_argument("--texts", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
