"""Evaluation: ours against the public scripts' way (`public_way.py`), both sides in one run, on the same photos.

    python benchmarks/eval.py                                   # mini and base, all four sets
    python benchmarks/eval.py --size base --sets retrieval --repeats 1 --json benchmarks/results/eval.json
    python benchmarks/eval.py --device cuda --dtype bf16 --size base --scale 20

The scores of both sides are compared first. `limit`: FLOPs of the public way over ours. `warm`: image encodings come
from the disk cache. Captions an image and tokens a caption are those of the official files. Times are medians of
interleaved runs, from the image files; a retrieval run re-scores candidates whose encodings both sides have.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from eval_flops import flop_limits
from measuring import output_file
from PIL import Image
from public_way import PublicWay
from torch import Tensor

from relvlm.config.load import load_config
from relvlm.config.schema import ModelConfig
from relvlm.data.text import Tokenizer
from relvlm.evals.scoring.scorer import ScoreOptions, Scorer
from relvlm.model import RelVLM

CONFIGS = Path(__file__).parents[1] / "configs"
SIZES = {"mini": CONFIGS / "mini/rex_vlm.yaml", "base": CONFIGS / "13m/rex_vlm.yaml"}
WORDS = 30_522
LENGTH = 40  # tokens that a text is padded to (X-VLM's max_tokens, and ALBEF's for these tasks)
K = 128
TOLERANCE = {"fp32": 1e-5, "bf16": 3e-2}


@dataclass(frozen=True)
class Workload:
    """`images` photos, `captions` of them an image, of `tokens` tokens on average."""

    name: str
    images: int
    captions: float
    tokens: float


SETS = (
    Workload("vsr", 16, 1.5, 9.2),
    Workload("valse", 12, 2.5, 11.2),
    Workload("sugarcrepe", 4, 9.6, 13.7),
    Workload("retrieval", 2, K, 13.0),
)


@dataclass(frozen=True)
class Pairs:
    """Pair g is photo `image[g]` with text `text[g]`."""

    photos: list[Path]
    texts: list[str]
    image: list[int]
    text: list[int]


def main() -> None:
    args = _arguments()
    torch.set_num_threads(args.threads)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for size in args.size:
            model, tokenizer = made_model(load_config(SIZES[size]).model, Path(folder))
            model.to(args.device)
            for workload in SETS:
                if workload.name in args.sets:
                    pairs = made_pairs(workload, args.scale, tokenizer, Path(folder))
                    rows.append({"size": size, **measure(model, tokenizer, workload, pairs, Path(folder), args)})
                    _print(rows[-1], header=len(rows) == 1)
    if args.json:
        context = {"command": sys.argv, "machine": _machine(args), "commit": _commit(), "dtype": args.dtype}
        args.json.write_text(json.dumps(context | {"rows": rows}, indent=1) + "\n")


def measure(
    model: RelVLM,
    tokenizer: Tokenizer,
    workload: Workload,
    pairs: Pairs,
    folder: Path,
    args: argparse.Namespace,
) -> dict[str, Any]:
    """Times of both sides and of the warm cache; RuntimeError where their scores differ."""
    options = ScoreOptions(device=args.device, dtype=args.dtype)
    cached = ScoreOptions(device=args.device, dtype=args.dtype, cache=folder / "cache")
    public = PublicWay(model, tokenizer, LENGTH)
    retrieval = workload.name == "retrieval"
    sides: dict[str, Callable[[], Callable[[], Tensor]]]
    if retrieval:
        sides = {"public": lambda: public_rescoring(public, pairs)}
        sides["ours"] = lambda: rescoring(model, tokenizer, pairs, options)
    else:
        sides = {"public": lambda: one_by_one(public, pairs)}
        sides["ours"] = lambda: scoring(model, tokenizer, pairs, options)
        sides["warm"] = lambda: scoring(model, tokenizer, pairs, cached)
    found = {name: timed(make, args)[1] for name, make in sides.items()}  # also warms up, and fills the cache
    worst = max(float((found["public"] - x).abs().max()) for x in found.values())
    if worst > TOLERANCE[args.dtype]:
        raise RuntimeError(f"{workload.name}: scores differ by {worst:.1e}: the two sides are not comparable")
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(args.repeats):
        for name, make in sides.items():
            seconds[name].append(timed(make, args)[0])
    times = {name: median(values) for name, values in seconds.items()}
    lengths = [len(ids) for ids in tokenizer.encode(pairs.texts, LENGTH, model.sep)]
    limits = flop_limits(model, lengths, LENGTH, len(pairs.photos), pairs.text, retrieval)
    row = {
        "set": workload.name,
        "images": len(pairs.photos),
        "pairs": len(pairs.image),
        "largest_difference": worst,
        "seconds": times,
        "ratio": times["public"] / times["ours"],
        "limit": limits["cold"],
    }
    if "warm" in times:
        row |= {"warm_ratio": times["public"] / times["warm"], "warm_limit": limits["warm"]}
    return row


def one_by_one(public: PublicWay, pairs: Pairs) -> Callable[[], Tensor]:
    """The public way from the files."""
    wanted = [(pairs.photos[i], pairs.texts[t]) for i, t in zip(pairs.image, pairs.text, strict=True)]
    return lambda: torch.tensor([public.probability(photo, text) for photo, text in wanted])


def scoring(model: RelVLM, tokenizer: Tokenizer, pairs: Pairs, options: ScoreOptions) -> Callable[[], Tensor]:
    """Ours from the files; the scorer is made beforehand, and holds nothing yet."""
    scorer = Scorer(model, tokenizer, options)
    photos = [pairs.photos[i] for i in pairs.image]
    texts = [pairs.texts[i] for i in pairs.text]
    return lambda: scorer.probabilities(photos, texts)


def rescoring(model: RelVLM, tokenizer: Tokenizer, pairs: Pairs, options: ScoreOptions) -> Callable[[], Tensor]:
    """Ours with images and texts encoded beforehand."""
    scorer = Scorer(model, tokenizer, options)
    scorer.encoded(pairs.photos)
    scorer.add_texts(pairs.texts)
    image, text = torch.tensor(pairs.image), torch.tensor(pairs.text)
    return lambda: scorer.match_logits(pairs.photos, pairs.texts, image, text)[:, 1]


def public_rescoring(public: PublicWay, pairs: Pairs) -> Callable[[], Tensor]:
    """The public way with images and texts encoded beforehand; an image's candidates are one batch."""
    tokens, mask = public.texts(pairs.texts)
    pixels = torch.stack([public.transform(Image.open(path).convert("RGB")) for path in pairs.photos])
    images = public.model.encode_image(pixels.to(public.device))
    chosen = [[t for i, t in zip(pairs.image, pairs.text, strict=True) if i == image] for image in range(len(images))]
    return lambda: torch.cat(
        [public.rescore(tokens[texts], mask[texts], image) for image, texts in zip(images, chosen, strict=True)]
    ).cpu()


@torch.inference_mode()
def timed(make: Callable[[], Callable[[], Tensor]], args: argparse.Namespace) -> tuple[float, Tensor]:
    """Seconds of one run, and its scores."""
    with torch.autocast(torch.device(args.device).type, torch.bfloat16, enabled=args.dtype == "bf16"):
        run = make()
        _wait(args.device)
        began = time.perf_counter()
        scores = run()
        _wait(args.device)
    return time.perf_counter() - began, scores.float().cpu()


def made_model(config: ModelConfig, folder: Path) -> tuple[RelVLM, Tokenizer]:
    """Random weights, and a vocabulary of made-up words."""
    words = [a + b + c for a in "bdfgklmnprstvz" for b in "aeiou" for c in "bdfgklmnprstvz"]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    (folder / "vocab.txt").write_text(
        "\n".join(special + words + [f"[unused{i}]" for i in range(WORDS - 5 - len(words))])
    )
    torch.manual_seed(0)
    model = RelVLM(config, WORDS, 0 if not config.relations else 310).eval()
    model.sep = True
    return model, Tokenizer(folder / "vocab.txt")


def made_pairs(workload: Workload, scale: float, tokenizer: Tokenizer, folder: Path) -> Pairs:
    """Photos of 640 x 480 as JPEG, and texts of the set's lengths."""
    rng = random.Random(0)
    images = max(1, round(workload.images * scale))
    photos = [folder / f"{workload.name}_{i}.jpg" for i in range(images)]
    for path in photos:
        small = Image.frombytes("RGB", (20, 15), rng.randbytes(900))
        small.resize((640, 480), Image.Resampling.BICUBIC).save(path)
    count = round(images * workload.captions)
    words = (folder / "vocab.txt").read_text().split()[5:900]
    sizes = [min(30, max(3, round(rng.gauss(workload.tokens - 2, 2.5)))) for _ in range(count)]
    texts = [" ".join(rng.choices(words, k=size)) for size in sizes]
    if workload.name == "retrieval":
        shared = texts[:K]
        pairs = [(i, t) for i in range(images) for t in range(len(shared))]
        return Pairs(photos, shared, [i for i, _ in pairs], [t for _, t in pairs])
    return Pairs(photos, texts, [t * images // count for t in range(count)], list(range(count)))


def _print(row: dict[str, Any], header: bool) -> None:
    if header:
        print("size  set         pairs  public ms/pair  ours ms/pair   ratio  limit    warm  limit   scores differ by")
    pairs, seconds = row["pairs"], row["seconds"]
    warm = f"{row['warm_ratio']:7.2f} {row['warm_limit']:6.2f}" if "warm_ratio" in row else " " * 14
    print(
        f"{row['size']:5} {row['set']:11} {pairs:5}  {1e3 * seconds['public'] / pairs:14.2f} "
        f"{1e3 * seconds['ours'] / pairs:13.2f} {row['ratio']:7.2f} {row['limit']:6.2f} {warm}   "
        f"{row['largest_difference']:.0e}",
        flush=True,
    )


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def _machine(args: argparse.Namespace) -> str:
    name = (
        torch.cuda.get_device_name() if args.device.startswith("cuda") else platform.processor() or platform.machine()
    )
    return f"{name}, {args.threads} threads, torch {torch.__version__}"


def _commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--sets", nargs="+", choices=[w.name for w in SETS], default=[w.name for w in SETS])
    parser.add_argument("--scale", type=float, default=1.0, help="times as many images (default: 1)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=list(TOLERANCE), default="fp32")
    parser.add_argument("--json", type=output_file)
    return parser.parse_args()


if __name__ == "__main__":
    main()
