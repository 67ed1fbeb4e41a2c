"""`relvlm data build relworld`: training shards, vocabulary, relation list and benchmarks of the generated world."""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from relvlm.data.arguments import positive
from relvlm.data.shards.store import write_shards
from relvlm.errors import UserError
from relvlm.relworld.bank import Bank
from relvlm.relworld.choice_files import write_negbench, write_sugarcrepe_pp, write_vl_checklist, write_whatsup
from relvlm.relworld.config import PRESETS, WorldConfig, held_out, world_config
from relvlm.relworld.corpus import Record, set_sizes, training_set
from relvlm.relworld.foil_files import scene_pool, write_sugarcrepe, write_valse
from relvlm.relworld.language import name, vocabulary
from relvlm.relworld.lexicon import PREDICATES
from relvlm.relworld.pairs import write_svo, write_vsr
from relvlm.relworld.quad_files import write_cola, write_colorswap, write_vismin
from relvlm.relworld.referring import write_refcoco
from relvlm.relworld.retrieval import write_coco, write_paragraphs
from relvlm.relworld.scene import Look, Scene
from relvlm.relworld.world import NoScene

_FEWEST = 20
_SHARD_SIZE = 1000  # even: siblings share a shard

KNOBS: dict[str, tuple[type, str]] = {  # fields of WorldConfig that are flags
    "image_size": (int, "pixels a side"),
    "shapes": (int, "how many shapes; more shapes, more labels to tell apart"),
    "colours": (int, "how many colours"),
    "textures": (int, "how many textures; 1 is solid only"),
    "backgrounds": (int, "how many background colours; the fourth is black"),
    "patterns": (int, "how many background patterns: 1 plain, 2 and gradients, 3 and noise"),
    "min_objects": (int, "fewest objects in an image"),
    "max_objects": (int, "most objects in an image; every further one makes a statement harder to ground"),
    "min_side": (float, "smallest object's side, as a share of the image's"),
    "max_side": (float, "largest object's side, as a share of the image's"),
    "action_share": (float, "share of images whose main relation is a depicted action"),
    "tail": (float, "how rare the later predicates are: the k-th is drawn k^-tail as often as the first"),
    "occlusion": (float, "chance that a further object covers a corner of another"),
    "held_out_share": (float, "share of (kind, relation, kind) combinations kept for the benchmarks"),
    "mirrored_share": (float, "share of graphs' pairs annotated both ways (left of and right of)"),
    "swapped_share": (float, "share of siblings that differ by an exchange of the two main things alone"),
    "relation_noise": (float, "share of graphs' relations whose predicate is another one's; 1: they say nothing"),
    "caption_relations": (float, "share of captions that state a relation; web captions seldom do"),
    "caption_noise": (float, "share of captions with a wrong word"),
    "phrases": (int, "region phrases an image of entities/, each over two objects"),
    "graph_fraction": (float, "share of the images that have a scene graph; they are rare in the wild"),
    "entity_fraction": (float, "share of the images that have labelled boxes without relations"),
    "paragraph_siblings": (int, "paragraphs of the same things, which relations alone tell apart"),
    "benchmark_pairs": (int, "size of the VSR test set; every other benchmark follows it"),
}


def build(
    out: Path,
    images: int,
    seed: int,
    *,
    preset: str = "full",
    workers: int = 2,
    overwrite: bool = False,
    **knobs: Any,
) -> int:
    """Write the world into the folder `out`: `images` training images, siblings together, and the benchmarks.

    Returns how many images these are: an even number, and two in each set at least.
    `knobs` are fields of WorldConfig (None: as in the preset). Output depends on the arguments but not on
    `workers`. It appears at `out` when complete. UserError for a bad argument or a taken `out`.
    """
    out, config = Path(out), world_config(preset, **knobs)
    if images < _FEWEST:
        raise UserError(f"relworld: images: {images} is too few to fill three sets (give at least {_FEWEST})")
    if out.exists() and not overwrite and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: already exists and is not an empty folder (choose another --out, or --overwrite)")
    partial = out.with_name(f".{out.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"{out}: cannot be made: {error.strerror} (choose another --out)") from error
    try:
        made = _write_world(partial, config, images, seed, preset, workers)
        _put_in_place(partial, out)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, NoScene):
            raise UserError(f"relworld: {error} (fewer or smaller objects, or a lower held_out_share)") from error
        raise
    return made


def _put_in_place(partial: Path, out: Path) -> None:
    if out.exists():
        old = partial.with_name(f"{partial.name}.old")  # of this process: one that was killed may have left its own
        out.rename(old)
        partial.rename(out)
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    else:
        partial.rename(out)


def _write_world(folder: Path, config: WorldConfig, images: int, seed: int, preset: str, workers: int) -> int:
    sizes = set_sizes(config, images)
    arguments = {"preset": preset, "images": images, "seed": seed, **asdict(config)}
    for set_name, count in sizes.items():
        records = _progress(training_set(config, seed, set_name, count, workers), count, set_name)
        write_shards(folder / set_name, records, source="relworld", builder_args=arguments, shard_size=_SHARD_SIZE)
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in vocabulary()))
    (folder / "relations.txt").write_text("".join(f"{p}\n" for p in sorted(config.predicates)))
    write_benchmarks(folder / "benchmarks", config, seed)
    description = {"arguments": arguments, "images": sizes, "held_out": held_out_triplets(config)}
    (folder / "world.json").write_text(json.dumps(description, indent=1))
    return sum(sizes.values())


def _progress(records: Iterable[Record], total: int, what: str) -> Iterator[Record]:
    yield from tqdm(records, total=total, desc=f"relworld {what}", unit="image", mininterval=1)


def held_out_triplets(config: WorldConfig) -> list[list[str]]:
    """[subject, predicate, object] of every combination that training never shows."""
    triplets = []
    for pair, family in held_out(config):
        first, second = sorted(pair)
        for subject, obj in ((first, second), (second, first)):
            names = [name(Look(shape, colour)) for colour, shape in (subject, obj)]
            triplets += [[names[0], p, names[1]] for p in config.predicates if PREDICATES[p].family == family]
    return sorted(triplets)


def write_benchmarks(folder: Path, config: WorldConfig, seed: int) -> Mapping[int, Scene]:
    """Evaluation files in the official formats, and the images they name under `images/`; the scenes by image id."""
    bank = Bank(config, seed)
    write_vsr(bank, folder / "vsr")
    write_svo(bank, folder / "svo")
    pool = scene_pool(bank)
    write_valse(bank, pool, folder / "valse")
    write_sugarcrepe(bank, pool, folder / "sugarcrepe")
    write_paragraphs(bank, folder / "paragraphs")
    write_coco(bank, folder / "coco")
    # These came later: what stands above must stay what it was, so each has streams of its own, and comes after it.
    write_whatsup(bank, pool, folder / "whatsup")
    write_sugarcrepe_pp(bank, pool, folder / "sugarcrepe_pp")
    write_vl_checklist(bank, pool, folder / "vl_checklist")
    write_negbench(bank, pool, folder / "negbench")
    write_cola(bank, folder / "cola")
    write_colorswap(bank, folder / "colorswap")
    write_vismin(bank, folder / "vismin")
    write_refcoco(bank, pool, folder / "refcoco")
    with tqdm(total=len(bank.scenes), desc="relworld benchmarks", unit="image", mininterval=1) as bar:
        bank.write(folder / "images", bar.update)
    return bank.scenes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `relvlm data build relworld`."""
    parser.description = "Generate RelWorld: drawn objects and relations, captions, boxes, graphs and benchmarks."
    parser.epilog = "example:\n  relvlm data build relworld --preset mini --images 20000 --out data/relworld\n"
    parser.add_argument("--out", type=Path, required=True, help="new folder to write")
    parser.add_argument("--images", type=int, default=20000, help="training images in all (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="everything follows from it (default %(default)s)")
    parser.add_argument(
        "--preset",
        choices=sorted(PRESETS),
        default="full",
        help="mini: learnable in minutes on two CPU cores",
    )
    parser.add_argument("--workers", type=positive, default=2, help="processes that draw (default %(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace --out if it holds something")
    group = parser.add_argument_group("how hard the world is (default: as in the preset)")
    for knob, (kind, text) in KNOBS.items():
        defaults = ", ".join(f"{name} {getattr(config, knob)}" for name, config in PRESETS.items())
        group.add_argument("--" + knob.replace("_", "-"), type=kind, help=f"{text} ({defaults})")


def main(args: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    knobs = {knob: getattr(args, knob) for knob in KNOBS}
    made = build(
        args.out,
        args.images,
        args.seed,
        preset=args.preset,
        workers=args.workers,
        overwrite=args.overwrite,
        **knobs,
    )
    print(f"{args.out}: {made} training images, benchmarks, vocab.txt and relations.txt")
    return 0
