"""Made scenes, shard sets of them, and the batches of a loader that reads them."""

import io
from dataclasses import fields, replace
from itertools import islice, pairwise

import torch
from PIL import Image

from relvlm.config.schema import (
    DatasetConfig,
    KindRatios,
)
from relvlm.data.batches.batch import LEFT_OUT
from relvlm.data.batches.loader import Loader, build_loader
from relvlm.data.batches.streams import open_streams
from relvlm.data.shards.schema import Entity, Relation, Sample
from relvlm.data.shards.store import write_shards

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [*SPECIAL, "cube", "ball", "red", "blue", "left", "right", "of", "picture", "number"]
DIGITS = [str(i) for i in range(10)] + [f"##{i}" for i in range(10)]
COUNT = 24
RED, BLUE = (255, 0, 0), (0, 0, 255)


def scene(number: int) -> tuple[str, bytes, Sample]:
    """A red cube left of a blue ball; the caption holds the number."""
    image = Image.new("RGB", (64, 48), (number, number, number))
    image.paste(RED, (4, 4, 20, 20))
    image.paste(BLUE, (40, 20, 60, 40))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    sample = Sample(
        image_id=str(number),
        width=64,
        height=48,
        source="scenes",
        captions=(f"picture number {number}",),
        entities=(
            Entity("c", "cube", (4, 4, 20, 20), ("red",)),
            Entity("b", "ball", (40, 20, 60, 40), ("blue",)),
        ),
        relations=(Relation("c", "left of", "b"), Relation("b", "right of", "c"), Relation("c", "near", "b")),
    )
    return f"{number:04d}", buffer.getvalue(), sample


def write(folder, name, records):
    write_shards(folder / name, records, source="scenes", builder_args={}, shard_size=10)
    return DatasetConfig(str(folder / name))


def only(config, kind):
    if kind == "joint":
        return config
    return replace(config, ratio=KindRatios(**{kind: 1.0}))


def loader_of(config, **kwargs) -> Loader:
    """Of images of 32 pixels."""
    return build_loader(config, *open_streams(config), image_size=32, patch_size=8, **{"seed": 0, **kwargs})


def steps(config, count, **kwargs):
    return list(islice(loader_of(config, **kwargs), count))


def load(config, count, **kwargs):
    return [batch for (batch,) in steps(config, count, **kwargs)]


def left_out(steps):
    """What the batches of some steps say was left out."""
    numbers = [chunk.left_out for step in steps for chunk in step]
    return dict(zip(LEFT_OUT, map(sum, zip(*numbers, strict=True)), strict=True))


def first(config, kind, **kwargs):
    return load(only(config, kind), 1, **kwargs)[0]


def same(a, b):
    pairs = [(getattr(a, f.name), getattr(b, f.name)) for f in fields(a) if f.name not in ("distinct", "regions")]
    pairs += zip(a.distinct, b.distinct, strict=True)
    pairs += [(getattr(a.regions, f.name), getattr(b.regions, f.name)) for f in fields(a.regions)]
    return all(torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y for x, y in pairs)


def texts(batch):
    vocab = WORDS + DIGITS
    cu = batch.regions.offsets.tolist()
    return [" ".join(vocab[i] for i in batch.text_ids[a:b]).replace(" ##", "") for a, b in pairwise(cu)]
