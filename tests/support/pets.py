"""Shard sets whose photos have a dog left of a red cat, and `relvlm data` in this process."""

import argparse
import io

from PIL import Image

from relvlm.data import cli
from relvlm.data.shards.schema import Entity, Relation, Sample
from relvlm.data.shards.store import write_shards


def run(*flags):
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    return cli.main(parser.parse_args([str(flag) for flag in flags]))


def photo(number, size=(20, 10)):
    stream = io.BytesIO()
    Image.new("RGB", size, (0, 40 * number, 0)).save(stream, "PNG")
    return stream.getvalue()


def sample(number, **changes):
    entities = (Entity("a", "dog", (0, 0, 8, 8)), Entity("b", "cat", (8, 0, 20, 8), ("red",)))
    fields = {
        "captions": (f"a dog <and> a cat {number}",),
        "entities": entities,
        "relations": (Relation("a", "left of", "b"),),
    }
    return Sample(str(number), 20, 10, "toy", **{**fields, **changes})


def build(out, samples=None):
    samples = samples or [(f"k{n}", photo(n), sample(n)) for n in range(4)]
    write_shards(out, samples, source="toy", builder_args={}, shard_size=3)
    return out
