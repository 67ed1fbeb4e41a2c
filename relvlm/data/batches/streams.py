"""The shard sets that a config names, opened once, as the streams that its kinds of batches draw from."""

from __future__ import annotations

import logging

from relvlm.config.cache import CacheConfig
from relvlm.config.schema import DataConfig, DatasetConfig
from relvlm.data.batches.pools import dealing_of
from relvlm.data.batches.regions import read_relations
from relvlm.data.batches.sampler import Stream
from relvlm.data.batches.usable import UsableRecords, sections_of
from relvlm.data.shards.files import CachedFiles
from relvlm.data.shards.index import vocabulary_keys
from relvlm.data.shards.store import ShardSet
from relvlm.errors import UserError
from relvlm.kinds import BATCH_KINDS, BatchKind, datasets_of

_log = logging.getLogger(__name__)


def open_streams(config: DataConfig) -> tuple[list[Stream], list[UsableRecords]]:
    """A stream and its records for each dataset of each kind that is drawn; kinds share the shard sets."""
    streams, records = [], []
    opened: dict[str, ShardSet] = {}
    for kind in BATCH_KINDS:
        ratio, section = getattr(config.ratio, kind), datasets_of(kind)
        if ratio <= 0:
            continue
        datasets: list[DatasetConfig] = getattr(config, section)
        total = sum(d.weight for d in datasets)
        if total <= 0:
            raise UserError(f"data.{section}: no dataset of positive weight, but data.ratio.{kind} is {ratio}")
        for i, dataset in enumerate(datasets):
            field = f"data.{section}[{i}].path"
            if dataset.path not in opened:
                opened[dataset.path] = _open_set(dataset.path, config.cache, field)
            usable = _usable(config, kind, dataset, opened[dataset.path], field)
            deal = dealing_of(config, kind, dataset)
            probability = ratio * dataset.weight / total
            streams.append(Stream(kind, f"{kind}/{i}", usable.sizes, deal.images, probability, deal.block, deal.pool))
            records.append(usable)
    return streams, records


def _open_set(path: str, cache: CacheConfig, field: str) -> ShardSet:
    try:
        shards = ShardSet(path, cache)
    except UserError as error:
        raise UserError(f"{field}: {error}") from error
    if not len(shards):
        raise UserError(f"{field}: {path} holds no sample")
    if isinstance(shards.files, CachedFiles):
        _log.info(
            "%s: %s: whole shards come into %s (at most %g GB), checked by SHA-256; samples, their order and a resume "
            "are exactly those of a folder",
            *(field, path, shards.files.cache.folder, cache.max_gb),
        )
    return shards


def _usable(config: DataConfig, kind: BatchKind, dataset: DatasetConfig, shards: ShardSet, field: str) -> UsableRecords:
    """What an epoch of the kind runs over; says how much that is, where it is not all."""
    kinds = sections_of(kind, config.joint_weights)
    words = read_relations(config.relations_file) if "mrc" in kinds else {}
    try:
        usable = UsableRecords(shards, kinds, vocabulary_keys(words), dataset.block)
    except UserError as error:
        raise UserError(f"{field}: {error}") from error
    if not len(usable):
        raise UserError(
            f"{field}: {dataset.path}: none of its {len(shards)} records has what {kind} batches need, "
            f"{usable.needed} (run: relvlm data stats {dataset.path})"
        )
    if len(usable) < len(shards):
        _log.info("%s: %d of %d records have %s: an epoch of %s", field, len(usable), len(shards), usable.needed, kind)
    return usable
