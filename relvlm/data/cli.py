"""`relvlm data`: build, relate, merge, index, lint, stats and preview shard sets."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from relvlm import storage
from relvlm.data.arguments import positive, shard_set
from relvlm.paths import Parser

if TYPE_CHECKING:
    from relvlm.data.tools.lint import Fault

SOURCES = {
    "relworld": (
        "relvlm.relworld.build",
        "a generated world of shapes, relations and actions (no download)",
    ),
    "coco": ("relvlm.data.sources.coco", "photos with captions and boxes"),
    "objects365": ("relvlm.data.sources.objects365", "photos with the boxes of 365 categories"),
    "open_images": ("relvlm.data.sources.open_images", "photos with boxes, attributes and relations"),
    "visual_genome": (
        "relvlm.data.sources.visual_genome",
        "photos with boxes, attributes and free-form relations",
    ),
    "vg_regions": ("relvlm.data.sources.vg_regions", "Visual Genome's region descriptions, as captions or as regions"),
    "flickr30k": ("relvlm.data.sources.flickr30k", "photos of Flickr with five captions"),
    "records": ("relvlm.data.sources.records", "any folder of photos with a JSONL of samples"),
    "parquet": ("relvlm.data.sources.parquet", "parquet files of the Hugging Face Hub (needs pyarrow)"),
    "sbu": ("relvlm.data.sources.sbu", "photos of Flickr with their captions: a table and photos, or tars"),
    "cc3m": ("relvlm.data.sources.cc3m", "photos of the web with alt-texts: a table and photos, or tars"),
    "cc12m": ("relvlm.data.sources.cc12m", "photos of the web with alt-texts: a table and photos, or tars"),
    "gqa": ("relvlm.data.sources.gqa", "Visual Genome photos with cleaned scene graphs"),
}
TOOLS = {
    "recipe": ("relvlm.data.recipes.recipe", "build every set that a config names"),
    "overlap": ("relvlm.data.recipes.overlap", "list the images of test sets, for `build --overlap`"),
    "predicates": ("relvlm.data.tools.predicates", "list GQA's predicates, counted beside the paper's"),
    "relate": ("relvlm.data.tools.relate", "add spatial relations derived from boxes"),
    "merge": ("relvlm.data.tools.merge", "join sets that annotate the same photos"),
    "index": ("relvlm.data.tools.index", "index a set that was built elsewhere, once"),
}
EPILOG = """A shard set is a folder of tars, each sample an image and its JSON, with a manifest.json that holds
checksums and counts. A usual sequence:

  relvlm data build relworld --out data/relworld --images 20000 --seed 0
  relvlm data build coco --help          # what a source needs
  relvlm data lint data/coco             # is it sound?
  relvlm data stats data/coco            # what is in it?
  relvlm data relate data/coco data/coco_spatial
  relvlm data preview data/coco_spatial --out look.html
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Mount the subcommands on `parser`."""
    parser.description = "Build and inspect shard sets."
    _teach(parser, EPILOG)
    commands = parser.add_subparsers(dest="data_command", required=True, metavar="COMMAND")
    _add_build(commands.add_parser("build", help="make a shard set from a raw dataset"))
    for name, (module, what) in TOOLS.items():
        _add_tool(commands.add_parser(name, help=what), module)
    _add_lint(commands.add_parser("lint", help="check checksums, schema, images and duplicates"))
    _add_stats(commands.add_parser("stats", help="counts, histograms of labels and predicates, text lengths"))
    _add_preview(commands.add_parser("preview", help="contact sheet with boxes, captions and relations"))


def main(args: argparse.Namespace) -> int:
    """Run the chosen subcommand; returns the exit status. UserError is for the caller to print."""
    status: int = args.data_main(args)
    return status


def _teach(parser: argparse.ArgumentParser, epilog: str) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = epilog


def _add_build(parser: argparse.ArgumentParser) -> None:
    parser.description = "Make a shard set from a raw dataset."
    lines = "\n".join(f"  {name:14} {what}" for name, (_, what) in SOURCES.items())
    _teach(parser, f"sources:\n{lines}\n\nflags of one source: relvlm data build SOURCE --help\n")
    parser.add_argument("source", choices=SOURCES, metavar="SOURCE", help=" | ".join(SOURCES))
    parser.add_argument("flags", nargs=argparse.REMAINDER, metavar="...", help="the source's own flags")
    parser.set_defaults(data_main=_build)


def _build(args: argparse.Namespace) -> int:
    builder = import_module(SOURCES[args.source][0])  # each source pays for its own imports
    parser = Parser(prog=f"relvlm data build {args.source}", formatter_class=argparse.RawDescriptionHelpFormatter)
    builder.add_arguments(parser)
    status: int = builder.main(parser.parse_args(args.flags)) or 0
    return status


def _add_tool(parser: argparse.ArgumentParser, module: str) -> None:
    """A subcommand that is a module with `add_arguments`, `main` and an EPILOG."""
    tool = import_module(module)
    tool.add_arguments(parser)
    _teach(parser, tool.EPILOG)
    parser.set_defaults(data_main=tool.main)


def _add_lint(parser: argparse.ArgumentParser) -> None:
    parser.description = "Check a shard set; sums up its faults by kind and exits with 1 if there is one."
    _teach(
        parser,
        "examples:\n  relvlm data lint data/coco && echo sound\n"
        "  relvlm data lint data/cc12m --sample 20000 --processes 8     # a first look at a large set\n",
    )
    _add_folder(parser)
    parser.add_argument(
        "--sample", type=positive, metavar="N", help="inspect N records drawn by chance, and no checksums (all of both)"
    )
    parser.add_argument("--processes", type=positive, default=1, metavar="N", help="that inspect records (%(default)s)")
    parser.add_argument("--list", action="store_true", help="every fault on a line of its own, in place of the sums")
    parser.set_defaults(data_main=_lint)


def _lint(args: argparse.Namespace) -> int:
    from relvlm.data.tools.lint import lint, summary

    found = lint(args.folder, args.sample, args.processes)
    count, lines = summary(_printed(found) if args.list else found)
    print(*([] if args.list else lines), sep="\n", end="\n" if lines and not args.list else "")
    inspected = f" in {args.sample} records at most (no checksums)" if args.sample else ""
    print(f"{args.folder}: {f'{count} faults' if count else 'sound'}{inspected}", file=sys.stderr)
    return 1 if count else 0


def _printed(faults: Iterable[Fault]) -> Iterator[Fault]:
    for fault in faults:
        print(fault.line)
        yield fault


def _add_stats(parser: argparse.ArgumentParser) -> None:
    parser.description = "Describe what a shard set holds. Damaged samples are counted, named and left out."
    _teach(
        parser,
        "examples:\n  relvlm data stats data/coco\n  relvlm data stats data/coco --json > stats.json\n"
        "  relvlm data stats data/gqa --plots look\n",
    )
    _add_folder(parser)
    parser.add_argument("--json", action="store_true", help="print JSON, with the histograms in full")
    parser.add_argument(
        "--plots", type=Path, metavar="DIR", help="draw how long the tails are, and what goes with what"
    )
    parser.set_defaults(data_main=_stats)


def _stats(args: argparse.Namespace) -> int:
    from relvlm.data.shards.store import ShardSet
    from relvlm.data.statistics import Pairs, as_text, describe
    from relvlm.data.tools.inspect import report_damaged, sound_samples

    if args.plots:
        storage.check_folder(args.plots, "--plots")
    damaged: list[str] = []
    samples, pairs = sound_samples(ShardSet(args.folder), damaged), Pairs()
    figures = describe(pairs.count(samples) if args.plots else samples)
    figures["totals"]["damaged"] = len(damaged)
    print(json.dumps(figures, indent=2, ensure_ascii=False) if args.json else as_text(figures))
    report_damaged(damaged)
    if args.plots:
        from relvlm.data.tools.plots import write_plots

        print(*write_plots(args.plots, figures, pairs), sep="\n", file=sys.stderr)
    return 0


def _add_preview(parser: argparse.ArgumentParser) -> None:
    parser.description = "Draw samples with their boxes, labels, captions and relations on one sheet."
    _teach(
        parser,
        "examples:\n  relvlm data preview data/relworld/graphs --out look.html --count 40\n"
        "  relvlm data preview data/gqa --out riding.html --predicate riding --label horse\n"
        "  relvlm data preview data/coco --out faults.html --faults\n",
    )
    _add_folder(parser)
    parser.add_argument("--out", type=Path, required=True, help="sheet.html (self-contained) or sheet.png")
    parser.add_argument("--count", type=positive, default=24, metavar="N", help="samples, spread over the set (24)")
    parser.add_argument("--label", nargs="+", default=(), metavar="L", help="samples with an entity of one of these")
    parser.add_argument(
        "--predicate", nargs="+", default=(), metavar="P", help="samples with one of these relations, and no other ones"
    )
    parser.add_argument("--key", nargs="+", default=(), metavar="K", help="the samples of these keys")
    parser.add_argument("--faults", action="store_true", help="only samples with faults, as far as they can be shown")
    parser.set_defaults(data_main=_preview)


def _preview(args: argparse.Namespace) -> int:
    from relvlm.data.tools.chosen import Chosen
    from relvlm.data.tools.inspect import report_damaged
    from relvlm.data.tools.preview import preview

    chosen = Chosen(tuple(args.label), tuple(args.predicate), tuple(args.key), args.faults)
    shown, damaged = preview(args.folder, args.out, args.count, chosen)
    print(f"{args.out}: {shown} samples" + (f", {len(damaged)} damaged ones left out" if damaged else ""))
    report_damaged(damaged)
    return 0


def _add_folder(parser: argparse.ArgumentParser) -> None:
    what = "shard set: the folder with manifest.json, or its address (s3://, gs://, hf://, https://, pipe:, ...)"
    parser.add_argument("folder", type=shard_set, metavar="DIR", help=what)
