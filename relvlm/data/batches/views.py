"""From a record to the view that a kind of batch takes of it: augmentation, texts, tokens, masks."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import NamedTuple

import numpy as np

from relvlm.config.schema import DataConfig
from relvlm.data.batches.batch import Group, View
from relvlm.data.batches.masking import mask
from relvlm.data.batches.regions import (
    Region,
    box_region,
    choose_entities,
    choose_relations,
    crop_around,
    describe,
    place,
    whole_region,
)
from relvlm.data.batches.transforms import (
    colour_augment,
    flip_box,
    flip_pixels,
    flip_sample,
    geometry_augment,
    random_crop,
    resize_square,
)
from relvlm.data.batches.usable import sections_of
from relvlm.data.batches.vsg import choose_triplets, encode_triplets, verbalise
from relvlm.data.decoders import open_picture
from relvlm.data.shards.schema import Box, Sample
from relvlm.data.shards.store import Record
from relvlm.data.shards.words import has_words, with_words
from relvlm.data.text import Tokenizer, pre_caption, text_key
from relvlm.kinds import BatchKind

NO_LIMIT = sys.maxsize


class Unusable(ValueError):
    """A sound sample that lacks what its kind of batch needs."""


class Texts(NamedTuple):
    """What a kind of batch says of an image; triplets as in View."""

    groups: Sequence[Group]
    triplets: Sequence[tuple[int, int, int]] = ()


class Undecoded(NamedTuple):
    """A view before its photo is decoded: what of the photo is seen, and what is said of it."""

    record: Record
    crop: Box  # in the photo as it is flipped, if it is
    flip: bool
    augment: Callable[[np.ndarray, Random], np.ndarray] | None
    rng: Random
    key: int
    groups: dict[BatchKind, Sequence[Group]]
    triplets: Sequence[tuple[int, int, int]]


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
        self.patch_size = patch_size
        self.resize(image_size)
        self.tokenizer, self.relations = tokenizer, relations
        self.counts: Counter[str] = Counter()
        self._groups: dict[BatchKind, Callable[[Sample, Box, Random], Texts]] = {
            "captions": self._captions,
            "entities": self._entities,
            "mrc": self._mrc,
            "vsg": self._vsg,
        }

    def resize(self, image_size: int) -> None:
        """Make views of this size from now on."""
        self.image_size = image_size
        self.whole = whole_region(image_size, self.patch_size)
        side = image_size // self.patch_size
        self.grid = (side, side)

    def view(self, kind: BatchKind, record: Record, rng: Random) -> View:
        """The view of `record`; raises Unusable where its annotation lacks a part, ValueError if damaged."""
        return self.decoded(self.undecoded(kind, record, rng))

    def undecoded(self, kind: BatchKind, record: Record, rng: Random) -> Undecoded:
        """The view but for its pixels; raises Unusable where the annotation lacks a part.

        The photo of a joint view is whole, as relations want it, with the texts of each kind that has a weight.
        """
        flip, before = rng.random() < self.config.flip, self.counts.copy()
        try:
            return self._undecoded(kind, record, flip, rng)
        except Unusable:  # by chance: of a text without words, or of predicates whose mirror images are not known
            self.counts = before  # of what is not taken, nothing was left out
            return self._undecoded(kind, replace(record, sample=with_words(record.sample)), False, rng)

    def decoded(self, view: Undecoded) -> View:
        """The view; raises ValueError where its photo is damaged or another than the annotation's."""
        sample, picture = view.record.sample, open_picture(view.record.image, self.config.max_pixels)
        if picture.size != (sample.width, sample.height):
            width, height = picture.size
            raise ValueError(f"image is {width}x{height}, annotation {sample.width}x{sample.height}")
        crop = flip_box(view.crop, sample.width) if view.flip else view.crop
        square_HWC = resize_square(picture, self.image_size, crop)
        if view.flip:
            square_HWC = flip_pixels(square_HWC)
        if view.augment is not None:
            square_HWC = view.augment(square_HWC, view.rng)
        return View(square_HWC, view.key, view.groups, view.triplets)

    def _undecoded(self, kind: BatchKind, record: Record, flip: bool, rng: Random) -> Undecoded:
        sample = flip_sample(record.sample) if flip else record.sample
        crop = self._crop(kind, sample, rng)
        parts = {k: self._groups[k](sample, crop, rng) for k in sections_of(kind, self.config.joint_weights)}
        triplets = parts["mrc"].triplets if "mrc" in parts else ()
        key = text_key(f"{sample.source}/{sample.image_id}")
        groups = {k: part.groups for k, part in parts.items()}
        return Undecoded(record, crop, flip, self._augment(kind), rng, key, groups, triplets)

    def _augment(self, kind: BatchKind) -> Callable[[np.ndarray, Random], np.ndarray] | None:
        if not self.config.randaugment:
            return None
        return geometry_augment if kind == "captions" and self.config.randaugment_geometry else colour_augment

    def _crop(self, kind: BatchKind, sample: Sample, rng: Random) -> Box:
        """What of the photo is seen: all of it by default and wherever relations are; near a random box by entities."""
        if kind == "captions":
            return random_crop(sample.width, sample.height, self.config.crop_scale, rng)
        if kind == "entities" and self.config.crop_scale < 1 and sample.entities:
            return crop_around(rng.choice(sample.entities).box, sample.width, sample.height, rng)
        return (0, 0, sample.width, sample.height)

    def _captions(self, sample: Sample, crop: Box, rng: Random) -> Texts:
        group = self._caption(sample, rng)
        if group is None:
            raise Unusable("no caption")
        return Texts([group])

    def _entities(self, sample: Sample, crop: Box, rng: Random) -> Texts:
        if not sample.entities:
            raise Unusable("no entity")
        groups = [
            self._group(describe(entity, rng), self._region(part, crop), rng)
            for entity, part in choose_entities(sample, crop, self.config.regions_per_image, rng)
        ]
        groups.append(self._caption(sample, rng))
        present = [group for group in groups if group is not None]
        if not present:
            raise Unusable("no entity with a label")
        return Texts(present)

    def _mrc(self, sample: Sample, crop: Box, rng: Random) -> Texts:
        config = self.config
        chosen, unknown = choose_relations(
            sample, self.relations, config.mrc_relations, config.mrc_entities, rng, config.relation_weights
        )
        self.counts["unknown_predicates"] += unknown
        if not chosen:
            raise Unusable("no relation of the vocabulary")
        place_of = {name: i for i, name in enumerate(dict.fromkeys(e for r in chosen for e in (r.subject, r.object)))}
        entities = {e.id: e for e in sample.entities}
        groups = []
        for name in place_of:
            group = self._group(entities[name].label, self._region(entities[name].box, crop), None)
            if group is None:
                raise Unusable(f"entity {name} has no label")
            groups.append(group)
        triplets = [(place_of[r.subject], place_of[r.object], self.relations[r.predicate]) for r in chosen]
        return Texts(groups, triplets)

    def _vsg(self, sample: Sample, crop: Box, rng: Random) -> Texts:
        config = self.config
        triplets = choose_triplets(sample, config.vsg_triplets, rng, config.relation_weights, config.vsg_sorted)
        named = {end for r in triplets for end in (r.subject, r.object)}
        if not all(has_words(e.label) for e in sample.entities if e.id in named):
            raise Unusable("a relation of an entity without a label")
        phrases = [pre_caption(phrase, NO_LIMIT) for phrase in verbalise(sample, triplets, rng)]
        ids, kept, dropped = encode_triplets(phrases, self.tokenizer, self.config.max_vsg_tokens)
        self.counts["dropped_triplets"] += dropped
        if not kept:
            raise Unusable("no relation" if not phrases else "no triplet fits data.max_vsg_tokens")
        return Texts([self._masked(ids, " [SEP] ".join(kept), self.whole, rng)])

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
        before = self.tokenizer.truncated
        (ids,) = self.tokenizer.encode([clean], self.config.max_text_tokens, self.config.sep)
        self.counts["truncated_texts"] += self.tokenizer.truncated - before
        if rng is None:
            return Group(ids, text_key(clean), region, ids, [], [])
        return self._masked(ids, clean, region, rng)

    def _masked(self, ids: list[int], text: str, region: Region, rng: Random) -> Group:
        return Group(ids, text_key(text), region, *mask(ids, rng, self.config, self.tokenizer))

    def _region(self, box: Box, crop: Box) -> Region:
        return box_region(place(box, crop, self.image_size), self.image_size, self.patch_size)
