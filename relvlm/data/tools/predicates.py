"""`relvlm data predicates`: the list of predicates that MRC classifies, made from GQA's own files by a stated policy.

The paper names 310 predicates, which it does not list, and 1.4M relations by a filter that it does not state. What
these files give is therefore printed beside what is known of the paper's.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from relvlm import storage
from relvlm.data.arguments import positive
from relvlm.data.shards.schema import Sample
from relvlm.data.shards.store import write_lines
from relvlm.data.sources.faults import Faults, RecordFault
from relvlm.data.sources.gqa import MIRRORED, Policy, to_sample
from relvlm.data.sources.json_stream import object_texts, value_of
from relvlm.data.sources.meter import Meter
from relvlm.errors import UserError

EPILOG = """The policy: a predicate is a relation's string in lower case with single spaces. A relation counts where a
build keeps it (both of its objects have a box of a pixel or more within the image, it stands once, it is not of an
object with itself), whether the photo is here or not. A predicate is listed from --min-count such relations on; by
default all are, as the paper seems to do. The list is sorted. It depends on the files alone, so that a build by it
has the same classes whatever photos are found.

example:
  relvlm data predicates --scene-graphs train_sceneGraphs.json --out gqa_predicates.txt
  relvlm data build gqa --scene-graphs train_sceneGraphs.json --images images \\
      --relations gqa_predicates.txt --out data/gqa
"""


class Known(NamedTuple):
    """A figure of the files as published, or of the paper's set."""

    name: str
    raw: str
    paper: str


KNOWN = (
    Known("graphs", "74,942", ".1M"),
    Known("objects", "1,231,134", ""),
    Known("relations stated", "3,795,907", ""),
    Known("relations kept", "", "1.4M"),
    Known("left or right, %", "about 82", ""),
    Known("predicates", "", "310"),
)


@dataclass
class Counts:
    """What the scene graphs hold."""

    graphs: int = 0
    objects: int = 0
    stated: int = 0
    kept: Counter[str] = field(default_factory=Counter)  # by predicate

    def add(self, graph: Any, sample: Sample) -> None:
        """Count a graph, and what a build keeps of it."""
        objects = graph["objects"].values()
        self.graphs += 1
        self.objects += len(objects)
        self.stated += sum(len(node.get("relations") or ()) for node in objects if isinstance(node, dict))
        self.kept.update(relation.predicate for relation in sample.relations)

    def figures(self, predicates: Sequence[str]) -> list[str]:
        """In the order of KNOWN; of the relations, those whose predicate is listed."""
        kept = sum(self.kept[predicate] for predicate in predicates)
        sides = 100 * sum(self.kept[side] for side in MIRRORED) / max(kept, 1)
        counts = (self.graphs, self.objects, self.stated, kept, sides, len(predicates))
        return [f"{count:,.0f}" for count in counts]


def listed(kept: Mapping[str, int], min_count: int) -> list[str]:
    """The predicates of `min_count` relations or more, sorted."""
    return sorted(predicate for predicate, count in kept.items() if count >= min_count)


def count_files(files: Sequence[Path], policy: Policy, faults: Faults) -> Counts:
    """The graphs of all files, each image once; raises UserError for a file that cannot be read, or too many faults."""
    counts = Counts()
    for graph, sample in _graphs(files, policy, faults):
        counts.add(graph, sample)
    faults.check()
    return counts


def _graphs(files: Sequence[Path], policy: Policy, faults: Faults) -> Iterator[tuple[Any, Sample]]:
    images: set[str] = set()

    def read(named: tuple[str, str]) -> tuple[Any, Sample]:
        image, words = named
        if image in images:
            raise RecordFault("image id: stands twice", image)
        images.add(image)
        graph = value_of(words)
        return graph, to_sample(image, graph, faults, policy)

    for file in files:
        texts = ((image, (image, words)) for image, words in object_texts(file, Meter()))
        yield from faults.sound("image", texts, read, file.name)


def comparison(counts: Counts, predicates: Sequence[str]) -> list[str]:
    """A table of what is here, of GQA's training file as published, and of the paper's set."""
    lines = [f"{'':18}{'here':>12}{'train file':>12}{'paper':>8}"]
    for known, here in zip(KNOWN, counts.figures(predicates), strict=True):
        lines.append(f"{known.name:18}{here:>12}{known.raw:>12}{known.paper:>8}")
    return lines


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `relvlm data predicates`."""
    parser.description = "Write the list of predicates of GQA's scene graphs, and count beside the paper's figures."
    parser.add_argument("--scene-graphs", type=Path, nargs="+", required=True, metavar="FILE", help="one, or several")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the list, one a line")
    parser.add_argument("--min-count", type=positive, default=1, metavar="N", help="relations of a predicate (1)")
    parser.add_argument(
        "--mirrored", choices=("keep", "drop"), default="keep", help="as of `relvlm data build gqa` (keep)"
    )


def main(args: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    if args.out.exists():
        raise UserError(f"{args.out}: already exists (a list that changes renumbers classes: choose another --out)")
    storage.check_folder(args.out.parent, "--out")
    faults = Faults("gqa")
    counts = count_files(args.scene_graphs, Policy(mirrored=args.mirrored == "keep"), faults)
    predicates = listed(counts.kept, args.min_count)
    if not predicates:
        raise UserError(f"{args.scene_graphs[0]}: no predicate of {args.min_count} relations (lower --min-count)")
    with storage.writing(args.out, "--out"):
        args.out.parent.mkdir(parents=True, exist_ok=True)
        write_lines(args.out, predicates)
    print(*comparison(counts, predicates), f"{args.out}: {len(predicates)} predicates", *faults.table(), sep="\n")
    return 0
