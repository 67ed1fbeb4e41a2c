"""`relvlm data merge`: shard sets that annotate the same photos, as one set for joint batches.

A joint step encodes a photo once for all that is known of it (`data.joint` in a training config).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from relvlm.data.arguments import positive, shard_set
from relvlm.data.image_ids import DATASETS
from relvlm.data.shards.address import Place
from relvlm.data.shards.schema import Box, Entity, Relation, Sample
from relvlm.data.shards.shard_file import Encoded
from relvlm.data.shards.store import SKIPPED, DataFault, ShardSet, check_free, write_shards
from relvlm.data.tools.inspect import refuse_repeated, sound_samples
from relvlm.errors import UserError

MAX_STRETCH = 1.01  # how far the aspect of a photo may differ between two sets: rounding of a resize


def merge(sets: Sequence[Place], out: Path, shard_size: int = 1000) -> tuple[dict[str, Any], list[str]]:
    """Write to `out` the photos that every set holds, by `image_id`, with the annotation of all.

    Photos, order and keys are the first set's; boxes follow where another set holds a photo in another size.
    Returns the manifest and what was left out though every set holds it. UserError if a set is none, if `out` is
    taken, if no photo is in all, or if the sets are of different datasets, whose ids mean different photos.
    """
    check_free(out)
    shards = [ShardSet(path) for path in sets]
    sources = [str(s.manifest.get("source", "")) for s in shards]
    _check_datasets(sets, sources)
    skipped: list[str] = []
    others = [_places(other, skipped) for other in shards[1:]]
    manifest = write_shards(
        out,
        _merged(shards, others, skipped),
        source="+".join(dict.fromkeys(sources)),
        builder_args={"merge": sources},
        shard_size=shard_size,
        skipped=skipped,
    )
    return manifest, skipped


def _check_datasets(sets: Sequence[Place], sources: Sequence[str]) -> None:
    """COCO's photo 42 is not Visual Genome's, though both have the id "42"."""
    known = {
        DATASETS[part]: path for path, s in zip(sets, sources, strict=True) for part in s.split("+") if part in DATASETS
    }
    if len(known) > 1:
        said = ", ".join(f"{path} is of {dataset}" for dataset, path in known.items())
        raise UserError(f"relvlm data merge: {said}: their ids mean different photos (merge sets of one dataset)")


def _places(shards: ShardSet, skipped: list[str]) -> dict[str, Sample]:
    """Annotation by image_id; of a photo that is there twice, the first, and the others are listed."""
    found: dict[str, Sample] = {}
    for sample in sound_samples(shards, skipped):
        if found.setdefault(sample.image_id, sample) is not sample:
            skipped.append(f"{shards.path}: image {sample.image_id} is there twice, its first annotation is taken")
    return found


def _merged(shards: list[ShardSet], others: list[dict[str, Sample]], skipped: list[str]) -> Iterator[Encoded]:
    first = shards[0]
    keys, images = set[str](), set[str]()
    for index in tqdm(range(len(first)), desc="merge", unit="image", disable=None):
        try:
            record = first.read(index)
            found = [other.get(record.sample.image_id) for other in others]
            if not all(found):
                continue
            refuse_repeated(record, "key", record.key, keys)
            refuse_repeated(record, "image_id", record.sample.image_id, images)
            joined = join([record.sample, *(s for s in found if s)])
        except DataFault as fault:
            skipped.append(str(fault))
        except ValueError as error:
            skipped.append(f"{record.shard}: {record.key}: {error}")
        else:
            yield record.key, record.image, joined


def join(samples: Sequence[Sample]) -> Sample:
    """One photo's annotations as one, in the size of the first; ValueError where the shapes of the photo differ.

    Equal captions, relations and entities (label and box) become one; attributes are united.
    """
    first = samples[0]
    entities: dict[tuple[str, Box], Entity] = {}
    relations: list[Relation] = []
    for number, sample in enumerate(samples):
        names = {}
        for entity in _scaled(sample, first):
            known = entities.setdefault((entity.label, entity.box), replace(entity, id=f"{number}.{entity.id}"))
            attributes = tuple(dict.fromkeys((*known.attributes, *entity.attributes)))
            entities[entity.label, entity.box] = replace(known, attributes=attributes)
            names[entity.id] = known.id
        relations += [Relation(names[r.subject], r.predicate, names[r.object]) for r in sample.relations]
    return replace(
        first,
        source="+".join(dict.fromkeys(s.source for s in samples)),
        captions=tuple(dict.fromkeys(caption for s in samples for caption in s.captions)),
        entities=tuple(entities.values()),
        relations=tuple(dict.fromkeys(relations)),
    )


def _scaled(sample: Sample, to: Sample) -> Iterator[Entity]:
    """Its entities with boxes in the size of `to`."""
    across, down = to.width / sample.width, to.height / sample.height
    if max(across / down, down / across) > MAX_STRETCH:
        raise ValueError(
            f"photo {to.image_id} is {to.width}x{to.height} in one set and {sample.width}x{sample.height} in another"
        )
    for entity in sample.entities:
        x0, y0, x1, y1 = entity.box
        box = (x0 * across, y0 * down, min(x1 * across, to.width), min(y1 * down, to.height))
        if not (box[0] < box[2] and box[1] < box[3]):  # a sliver at the edge, rounded away
            raise ValueError(f"photo {to.image_id}: nothing is left of box {entity.box} in {to.width}x{to.height}")
        yield replace(entity, box=box)


EPILOG = """example, Visual Genome's regions and GQA's scene graphs of the same photos, then trained on jointly:
  relvlm data merge data/vg_rd data/gqa --out data/vg_gqa
  relvlm data stats data/vg_gqa
  relvlm train --config configs/13m/rex_vlm.yaml 'data.joint=[{path: data/vg_gqa}]' data.batch.joint=256 \\
      data.joint_weights.captions=0 'data.ratio={captions: 2, entities: 1.5, joint: 2}'
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `relvlm data merge`."""
    parser.description = "Join shard sets that annotate the same photos: those that every set holds."
    parser.epilog = EPILOG
    parser.add_argument("sets", type=shard_set, nargs="+", metavar="IN", help="shard sets; the photos are the first's")
    parser.add_argument("--out", type=Path, required=True, help="new folder")
    parser.add_argument("--shard-size", type=positive, default=1000, metavar="N", help="samples per shard (1000)")


def main(args: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    if len(args.sets) < 2:
        raise UserError("relvlm data merge: needs two shard sets or more")
    manifest, skipped = merge(args.sets, args.out, args.shard_size)
    totals = manifest["totals"]
    print(f"{args.out}: {totals['samples']} images, {totals['relations']} relations")
    if skipped:
        print(f"left out {len(skipped)} samples, listed in {args.out / SKIPPED}", file=sys.stderr)
    return 0
