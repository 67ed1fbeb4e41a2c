"""Every set that a config names, built from one folder of raw files, without the images of the test sets."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from relvlm.config.load import load_config
from relvlm.data.arguments import positive
from relvlm.data.recipes.overlap import write_overlap
from relvlm.data.shards.address import place_of
from relvlm.data.shards.manifest import MANIFEST
from relvlm.errors import UserError
from relvlm.paths import Parser

EPILOG = """example:
  relvlm data recipe --config configs/13m/rex_vlm.yaml --raw /data/raw --processes 16
  make data-13m RAW=/data/raw                                                            # the same
"""
COCO_SITE = "https://cocodataset.org/#download"
COCO_CAPTIONS = "coco/captions_train2017.json"  # train2017 holds most of Karpathy's validation and test images
VG_SITE = "https://homes.cs.washington.edu/~ranjay/visualgenome/api.html"
VG_PHOTOS = "--images vg/VG_100K vg/VG_100K_2"
TARS = "tars by img2dataset (--output_format webdataset) from the table at"


@dataclass(frozen=True)
class Part:
    """A shard set: its builder, flags (paths are those within the raw folder), and where the raw files come from."""

    source: str
    flags: str
    origin: str

    def command(self, raw: Path) -> list[str]:
        return [str(raw / word) if "/" in word else word for word in self.flags.split()]

    def missing(self, raw: Path) -> list[Path]:
        return [raw / word for word in self.flags.split() if "/" in word and not (raw / word).exists()]


PARTS = {
    "sbu": Part("sbu", "--tars sbu/", f"{TARS} https://www.cs.rice.edu/~vo9/sbucaptions/"),
    "coco": Part("coco", f"--captions {COCO_CAPTIONS} --images coco/train2017", COCO_SITE),
    "coco_od": Part("coco", "--instances coco/instances_train2017.json --images coco/train2017", COCO_SITE),
    "vg": Part("vg_regions", f"--regions vg/region_descriptions.json --as captions {VG_PHOTOS}", VG_SITE),
    "vg_rd": Part("vg_regions", f"--regions vg/region_descriptions.json --as regions {VG_PHOTOS}", VG_SITE),
    "vg_od": Part(
        "visual_genome",
        f"--relationships vg/relationships.json --objects vg/objects.json --attributes vg/attributes.json {VG_PHOTOS}",
        VG_SITE,
    ),
    "cc3m": Part("cc3m", "--tars cc3m/", f"{TARS} https://ai.google.com/research/ConceptualCaptions/download"),
    "cc12m": Part("cc12m", "--tars cc12m/", f"{TARS} https://github.com/google-research-datasets/conceptual-12m"),
    "gqa": Part(
        "gqa",
        "--scene-graphs gqa/train_sceneGraphs.json --images gqa/images",
        "https://cs.stanford.edu/people/dorarad/gqa/download.html",
    ),
}
KARPATHY = "https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip"
BENCHMARKS = {
    "coco": ("benchmarks/dataset_coco.json", KARPATHY),
    "flickr30k": ("benchmarks/dataset_flickr30k.json", KARPATHY),
    "vsr": ("benchmarks/vsr", "https://github.com/cambridgeltl/visual-spatial-reasoning"),
    "sugarcrepe": ("benchmarks/sugarcrepe", "https://github.com/RAIVNLab/sugar-crepe"),
    "paragraphs": ("benchmarks/paragraphs", "https://cs.stanford.edu/people/ranjaykrishna/im2p/"),
    "whatsup": ("benchmarks/whatsup", "https://github.com/amitakamath/whatsup_vlms"),
}
IMAGE_DATA = "vg/image_data.json"


def sets_of(config: Path) -> dict[str, Path]:
    """Name -> folder of every shard set that a config trains on; raises UserError for one without a builder here."""
    data = load_config(config).data
    places = [place_of(entry.path) for entries in (data.captions, data.entities, data.graphs) for entry in entries]
    afar = [place for place in places if not isinstance(place, Path)]
    if afar:
        raise UserError(
            f"{config}: {', '.join(map(str, afar))}: sets are built in folders (build there, then copy them)"
        )
    paths = [place for place in places if isinstance(place, Path)]
    unknown = [str(path) for path in paths if path.name not in PARTS]
    if unknown:
        raise UserError(f"{config}: {', '.join(unknown)}: no set of the recipes (known are {', '.join(PARTS)})")
    sets = {path.name: path for path in paths}
    twice = [path for path in paths if path != sets[path.name]]
    if twice:
        raise UserError(f"{config}: {twice[0]}, {sets[twice[0].name]}: one set of the recipes (name it by one path)")
    return sets


def missing_files(names: list[str], raw: Path, overlap: bool) -> list[tuple[str, Path, str]]:
    """(what needs it, file or folder, where to get it) of all that is not in `raw`."""
    found = [(name, path, PARTS[name].origin) for name in names for path in PARTS[name].missing(raw)]
    if overlap:
        ids = ("Visual Genome's ids at COCO", (IMAGE_DATA, VG_SITE)), ("COCO's at Flickr", (COCO_CAPTIONS, COCO_SITE))
        wanted = [*BENCHMARKS.items(), *ids]
        found += [(f"overlap ({name})", raw / path, url) for name, (path, url) in wanted if not (raw / path).exists()]
    return found


def build_recipe(args: argparse.Namespace) -> int:
    """Build what can be built; returns 1 where something is missing, after naming it."""
    sets = {name: path for name, path in sets_of(args.config).items() if not (path / MANIFEST).exists()}
    missing = missing_files(list(sets), args.raw, not args.with_test_images)
    for name, path, url in missing:
        print(f"{name}: {path} is missing (get it at {url})", file=sys.stderr)
    if any(name.startswith("overlap") for name, _, _ in missing):
        raise UserError("the images of test sets cannot be told (get the files, or --with-test-images to keep them)")
    common = ["--processes", str(args.processes), "--max-side", str(args.max_side)]
    if not args.with_test_images:
        common += ["--overlap", str(_overlap(args.raw, sets))] if sets else []
    for name, path in sets.items():
        if name not in {needs for needs, _, _ in missing}:
            _build(PARTS[name], [*PARTS[name].command(args.raw), "--out", str(path), *common])
    return 1 if missing else 0


def _overlap(raw: Path, sets: dict[str, Path]) -> Path:
    out = next(iter(sets.values())).parent / "overlap.txt"
    benchmarks = {name: raw / path for name, (path, _) in BENCHMARKS.items()}
    for line in write_overlap(out, benchmarks, raw / IMAGE_DATA, [raw / COCO_CAPTIONS]):
        print(line)
    return out


def _build(part: Part, flags: list[str]) -> None:
    source = import_module(f"relvlm.data.sources.{part.source}")
    parser = Parser(prog=f"relvlm data build {part.source}")
    source.add_arguments(parser)
    source.main(parser.parse_args(flags))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `relvlm data recipe`."""
    parser.description = "Build every shard set that a config names and that is not there yet, from raw files."
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="configs/13m/rex_vlm.yaml, say")
    parser.add_argument("--raw", type=Path, required=True, metavar="DIR", help="folder of the raw files")
    parser.add_argument("--processes", type=positive, default=1, metavar="N", help="that make shards (1)")
    parser.add_argument("--max-side", type=positive, default=512, metavar="N", help="of the stored photos (512)")
    parser.add_argument(
        "--with-test-images", action="store_true", help="keep the images of COCO, Flickr30K, VSR, ... test sets"
    )


def main(args: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    return build_recipe(args)
