"""`relvlm data merge`: shard sets that annotate the same photos, as one set for joint batches.

A joint step encodes a photo once for all that is known of it (`data.joint` in a training config).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from relvlm.data.arguments import shard_set
from relvlm.data.image_ids import DATASETS
from relvlm.data.shards.address import Place
from relvlm.data.shards.schema import Box, Entity, Relation, Sample
from relvlm.data.sources.building import add_driver_arguments
from relvlm.data.sources.faults import Faults, RecordFault
from relvlm.data.sources.item import Item, Size
from relvlm.data.sources.meter import Meter
from relvlm.data.sources.raw import check_size
from relvlm.data.sources.spool import SeenNames, Spool
from relvlm.data.tools.stored import StoredSets, copy_and_report, opened, repeated, sound_records
from relvlm.errors import UserError

MAX_STRETCH = 1.01  # how far the aspect of a photo may differ between two sets: rounding of a resize


@dataclass(frozen=True)
class Merged(StoredSets):
    """The photos that every set holds, by `image_id`, with the annotation of all.

    Photos, order and keys are the first set's; boxes follow where another set holds a photo in another size.
    """

    @property
    def name(self) -> str:
        return "+".join(dict.fromkeys(self._sources()))

    def _sources(self) -> list[str]:
        return [str(opened(folder).manifest.get("source", "")) for folder in self.folders]

    def check(self) -> None:
        """Raise UserError where a set is none, or the sets are of datasets whose ids mean different photos."""
        _check_datasets(self.folders, self._sources())

    def arguments(self) -> dict[str, Any]:
        return {"merge": self._sources()}

    def items(self, faults: Faults, meter: Meter) -> Iterator[Item]:
        others = Spool()
        for number, folder in enumerate(self.folders[1:]):
            _spool(others, str(number), folder, faults)
        images = SeenNames()
        for record, item in self.records(faults, meter):
            found = [others.get(str(number), item.image_id) for number in range(len(self.folders) - 1)]
            if not all(found):
                continue
            if not images.add(item.image_id):
                repeated(faults, record, f"same image_id as a record before: {item.image_id}")
                continue
            yield item._replace(record=[record.sample, *(samples[0] for samples in found)])

    def sample(self, item: Item, size: Size, faults: Faults) -> Sample:
        check_size(item.photo.name, size, (item.record[0].width, item.record[0].height))
        try:
            return join(item.record)
        except ValueError as error:
            raise RecordFault("sets that do not fit together", str(error)) from error


def _check_datasets(sets: Sequence[Place], sources: Sequence[str]) -> None:
    """COCO's photo 42 is not Visual Genome's, though both have the id "42"."""
    known = {
        DATASETS[part]: path for path, s in zip(sets, sources, strict=True) for part in s.split("+") if part in DATASETS
    }
    if len(known) > 1:
        said = ", ".join(f"{path} is of {dataset}" for dataset, path in known.items())
        raise UserError(f"relvlm data merge: {said}: their ids mean different photos (merge sets of one dataset)")


def _spool(others: Spool, part: str, folder: Place, faults: Faults) -> None:
    """Annotation by image_id; of a photo that is there twice, the first, and the others are faults."""
    images = SeenNames()
    for _, record in sound_records(opened(folder), faults):
        image = record.sample.image_id
        if not images.add(image):
            repeated(faults, record, f"{folder}: image {image} is there twice, its first annotation is taken")
            continue
        others.put(part, image, record.sample)


def join(samples: Sequence[Sample]) -> Sample:
    """One photo's annotations as one, in the size of the first; ValueError where the shapes of the photo differ.

    Equal captions, relations and entities (label and box) become one; attributes are united. A relation between two
    that become one goes, as builders leave out those of a thing with itself.
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
        renamed = [replace(r, subject=names[r.subject], object=names[r.object]) for r in sample.relations]
        relations += [r for r in renamed if r.subject != r.object]
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
    add_driver_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    if len(args.sets) < 2:
        raise UserError("relvlm data merge: needs two shard sets or more")
    merged = Merged(tuple(args.sets))
    merged.check()
    return copy_and_report(merged, args)
