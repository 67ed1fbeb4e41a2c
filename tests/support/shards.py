"""Small shard sets, and tars of any members."""

import hashlib
import io
import json
import tarfile
from pathlib import Path

from PIL import Image

from relvlm.data.shards.schema import Entity, Relation, Sample
from relvlm.data.shards.store import ShardSet, write_shards
from relvlm.data.tools.index import index_set


def toy_photo(number: int, size: tuple[int, int] = (8, 6)) -> bytes:
    """A PNG, another one for each number below 256."""
    stream = io.BytesIO()
    Image.new("RGB", size, (number, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


def toy_sample(number: int) -> Sample:
    """A caption, two entities and a relation on a photo of 8 x 6 pixels."""
    entities = (Entity("a", "dog", (0, 0, 4, 4)), Entity("b", "cat", (4, 1, 8, 6), ("red",)))
    return Sample(str(number), 8, 6, "toy", (f"caption {number}",), entities, (Relation("a", "near", "b"),))


def write_toys(out: Path, count: int, shard_size: int = 3) -> Path:
    """A shard set of `count` toys with keys k0, k1, ..."""
    toys = [(f"k{n}", toy_photo(n), toy_sample(n)) for n in range(count)]
    write_shards(out, toys, source="toy", builder_args={}, shard_size=shard_size)
    return out


def write_tar(path: Path, members: list[tuple[str, bytes]]) -> Path:
    """A tar of plain files in the given order, names as often as given."""
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def shard_set(folder: Path, members: list[tuple[str, bytes]], samples: int) -> ShardSet:
    """A set of one shard of these members, for which the manifest promises `samples`, indexed."""
    folder.mkdir()
    tar = write_tar(folder / "0.tar", members)
    data = tar.read_bytes()
    entry = {"name": tar.name, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), "samples": samples}
    (folder / "manifest.json").write_text(json.dumps({"schema": 1, "source": "toy", "shards": [entry]}))
    index_set(folder, [])
    return ShardSet(folder)
