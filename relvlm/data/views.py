"""From a record to the view that a kind of batch takes of it: augmentation, texts, tokens, masks."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Mapping
from random import Random

import numpy as np
from PIL import Image

from relvlm.config import DataConfig
from relvlm.data.batch import BatchKind, Group, View
from relvlm.data.masking import mask
from relvlm.data.regions import (
    Region,
    box_region,
    choose_entities,
    choose_relations,
    crop_around,
    describe,
    place,
    whole_region,
)
from relvlm.data.schema import Box, Sample
from relvlm.data.shards import Record
from relvlm.data.text import Tokenizer, pre_caption, text_key
from relvlm.data.transforms import (
    colour_augment,
    flip_box,
    flip_image,
    flip_sample,
    geometry_augment,
    open_image,
    random_crop,
    resize_square,
)
from relvlm.data.vsg import choose_triplets, encode_triplets, verbalise

NO_LIMIT = sys.maxsize


class Unusable(ValueError):
    """A sound sample that lacks what its kind of batch needs."""


class ViewBuilder:
    """Makes views; `counts` tells what had to be left out on the way (texts cut, triplets dropped, ...)."""

    def __init__(
        self,
        config: DataConfig,
        image_size: int,
        patch_size: int,
        tokenizer: Tokenizer,
        relations: Mapping[str, int],
    ) -> None:
        self.config = config
        self.image_size, self.patch_size = image_size, patch_size
        self.tokenizer, self.relations = tokenizer, relations
        self.whole = whole_region(image_size, patch_size)
        self.counts: Counter[str] = Counter()

    def view(self, kind: BatchKind, record: Record, rng: Random) -> View:
        """The view of `record`; raises Unusable where its annotation lacks a part, ValueError if damaged."""
        build = {
            "captions": self._captions,
            "entities": self._entities,
            "mrc": self._mrc,
            "vsg": self._vsg,
        }[kind]
        flip = rng.random() < self.config.flip
        return build(record, flip_sample(record.sample) if flip else record.sample, flip, rng)

    def _captions(self, record: Record, sample: Sample, flip: bool, rng: Random) -> View:
        group = self._caption(sample, rng)
        if group is None:
            raise Unusable("no caption")
        crop = random_crop(sample.width, sample.height, self.config.crop_scale, rng)
        augment = geometry_augment if self.config.randaugment_geometry else colour_augment
        return self._finish(record, crop, flip, rng, [group], augment=augment)

    def _entities(self, record: Record, sample: Sample, flip: bool, rng: Random) -> View:
        if not sample.entities:
            raise Unusable("no entity")
        crop = _whole(sample)
        if self.config.crop_scale < 1:
            crop = crop_around(rng.choice(sample.entities).box, sample.width, sample.height, rng)
        groups = [
            self._group(describe(entity, rng), self._region(part, crop), rng)
            for entity, part in choose_entities(sample, crop, self.config.regions_per_image, rng)
        ]
        groups.append(self._caption(sample, rng))
        present = [group for group in groups if group is not None]
        if not present:
            raise Unusable("no entity with a label")
        return self._finish(record, crop, flip, rng, present)

    def _mrc(self, record: Record, sample: Sample, flip: bool, rng: Random) -> View:
        chosen, unknown = choose_relations(
            sample, self.relations, self.config.mrc_relations, self.config.mrc_entities, rng
        )
        self.counts["unknown_predicates"] += unknown
        if not chosen:
            raise Unusable("no relation of the vocabulary")
        crop = _whole(sample)
        place_of = {
            name: i for i, name in enumerate(dict.fromkeys(e for r in chosen for e in (r.subject, r.object)))
        }
        entities = {e.id: e for e in sample.entities}
        groups = []
        for name in place_of:
            group = self._group(entities[name].label, self._region(entities[name].box, crop), None)
            if group is None:
                raise Unusable(f"entity {name} has no label")
            groups.append(group)
        triplets = [(place_of[r.subject], place_of[r.object], self.relations[r.predicate]) for r in chosen]
        return self._finish(record, crop, flip, rng, groups, triplets)

    def _vsg(self, record: Record, sample: Sample, flip: bool, rng: Random) -> View:
        triplets = choose_triplets(sample, self.config.vsg_triplets, rng)
        phrases = [pre_caption(phrase, NO_LIMIT) for phrase in verbalise(sample, triplets, rng)]
        ids, kept, dropped = encode_triplets(phrases, self.tokenizer, self.config.max_vsg_tokens)
        self.counts["dropped_triplets"] += dropped
        if not kept:
            raise Unusable("no relation" if not phrases else "no triplet fits data.max_vsg_tokens")
        group = self._masked(ids, " [SEP] ".join(kept), self.whole, rng)
        return self._finish(record, _whole(sample), flip, rng, [group])

    def _caption(self, sample: Sample, rng: Random) -> Group | None:
        """One caption about the whole image, drawn at random."""
        if not sample.captions:
            return None
        return self._group(rng.choice(sample.captions), self.whole, rng)

    def _group(self, text: str, region: Region, rng: Random | None) -> Group | None:
        """The group of a text, masked if a random state is given; None where no word is left of it."""
        words = pre_caption(text, NO_LIMIT).split(" ")
        self.counts["cut_captions"] += len(words) > self.config.max_words
        clean = " ".join(words[: self.config.max_words])
        if not clean:
            return None
        (ids,) = self.tokenizer.encode([clean], self.config.max_text_tokens, self.config.sep)
        if rng is None:
            return Group(ids, text_key(clean), region, ids, [], [])
        return self._masked(ids, clean, region, rng)

    def _masked(self, ids: list[int], text: str, region: Region, rng: Random) -> Group:
        return Group(ids, text_key(text), region, *mask(ids, rng, self.config, self.tokenizer))

    def _region(self, box: Box, crop: Box) -> Region:
        return box_region(place(box, crop, self.image_size), self.image_size, self.patch_size)

    def _finish(
        self,
        record: Record,
        crop: Box,
        flip: bool,
        rng: Random,
        groups: list[Group],
        triplets: list[tuple[int, int, int]] | None = None,
        augment: Callable[[Image.Image, Random], Image.Image] = colour_augment,
    ) -> View:
        """Decode last: what is unusable has not cost the decoding."""
        sample = record.sample
        image = open_image(record.image, self.config.max_pixels)
        if image.size != (sample.width, sample.height):
            raise ValueError(
                f"image is {image.width}x{image.height}, annotation {sample.width}x{sample.height}"
            )
        square = resize_square(image, self.image_size, flip_box(crop, sample.width) if flip else crop)
        if flip:
            square = flip_image(square)
        if self.config.randaugment:
            square = augment(square, rng)
        key = text_key(f"{sample.source}/{sample.image_id}")
        return View(np.asarray(square), key, groups, triplets or [])


def _whole(sample: Sample) -> Box:
    return (0, 0, sample.width, sample.height)
