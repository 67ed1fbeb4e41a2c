"""The index of a shard, `NNNNNN.idx.npy` beside its tar: where each record lies, and what it has.

The file holds two arrays, one behind the other. The first, (n, 4) uint32, 16 bytes a record, is what readers map:
block of the image, its bytes, block of the JSON, its bytes * 256 + bits. Blocks are of 512 bytes, as in a tar; block 0
stands for a member that is not there. The second names the predicates of each record by hash: a vocabulary is a
config's, so which records have a relation of it is found by comparing hashes, without a JSON read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from hashlib import sha256
from io import BytesIO
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import NamedTuple

import numpy as np

from relvlm.data.shards.schema import Sample
from relvlm.data.shards.words import with_words
from relvlm.data.text import text_key
from relvlm.errors import UserError

SUFFIX = ".idx.npy"
BLOCK = 512
LARGEST_TEXT = 2**24 - 1  # bytes of a JSON that a row can say
CAPTION, ENTITY, RELATION = 1, 2, 4  # bits: the record has one whose words a batch can use
REPEATED, ODD_HEADER = 64, 128  # its key is there more than once; its header does not say its name and size
PREDICATE = np.dtype([("record", "<u4"), ("key", "<i8")])
NOTHING = (0, 0)

Span = tuple[int, int]  # of a member's data: offset and size in bytes


class Row(NamedTuple):
    """Where a record's members lie, NOTHING for one that is not there, and its bits."""

    image: Span
    text: Span
    bits: int


class IndexRows:
    """The rows of one shard in their making."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, int, int, int]] = []
        self.predicates: list[tuple[int, int]] = []

    def add(self, image: Span, text: Span, sample: Sample | None, marks: int = 0) -> None:
        """A record; `sample` is None where there is none to be read. ValueError for a JSON that no row can say."""
        if text[1] > LARGEST_TEXT:
            raise ValueError(f"JSON of {text[1]} bytes, at most {LARGEST_TEXT} can be indexed")
        bits, predicates = (0, ()) if sample is None else _content(with_words(sample))
        record = len(self.rows)
        self.rows.append((image[0] // BLOCK, image[1], text[0] // BLOCK, text[1] << 8 | bits | marks))
        self.predicates += [(record, text_key(predicate)) for predicate in sorted(predicates)]

    def write(self, path: Path) -> None:
        """Both arrays into a new file."""
        with path.open("wb") as stream:
            np.save(stream, np.array(self.rows, "<u4").reshape(-1, 4))
            np.save(stream, np.array(self.predicates, PREDICATE))

    def having(self, bit: int) -> int:
        """Records with this bit."""
        return sum(row[3] & bit != 0 for row in self.rows)


def _content(sample: Sample) -> tuple[int, Collection[str]]:
    """Bits and predicates."""
    has = bool(sample.captions), bool(sample.entities), bool(sample.relations)
    bits = sum(bit for bit, present in zip((CAPTION, ENTITY, RELATION), has, strict=True) if present)
    return bits, {relation.predicate for relation in sample.relations}


def vocabulary_keys(predicates: Iterable[str]) -> np.ndarray:
    """(V,) int64: the hashes of a vocabulary, as an index names them."""
    return np.array([text_key(predicate) for predicate in predicates], np.int64)


def index_name(shard: str) -> str:
    """`000042.idx.npy` of `000042.tar`."""
    return Path(shard).stem + SUFFIX


class ShardIndex:
    """An index as read: its rows lie in memory that is mapped."""

    def __init__(self, path: Path, digest: str, records: int) -> None:
        """Raises UserError where the file is not the one of that SHA-256, or has another number of rows."""
        self.path = path
        try:
            with path.open("rb") as stream:
                self._data = mmap(stream.fileno(), 0, access=ACCESS_READ)
        except FileNotFoundError:
            check_is_there(path)
            raise
        except (OSError, ValueError) as error:  # ValueError: of an empty file
            raise UserError(f"{path}: cannot be read: {error} {_mend(path)}") from error
        self._check(sha256(self._data).hexdigest() == digest, "is not the file that manifest.json lists")
        header, start = self._header()
        self._end = start + 16 * records
        form = b"'<u4'" in header and b"'shape': (%d, 4)" % records in header and len(self._data) > self._end
        self._check(form, f"holds no index of {records} records")
        self.rows = np.frombuffer(self._data, "<u4", 4 * records, start).reshape(-1, 4)

    def _header(self) -> tuple[bytes, int]:
        """Of the first array, and where that begins; numpy parses it as Python, which takes as long as all else."""
        start = 10 + int.from_bytes(self._data[8:10], "little")
        return self._data[:start], start

    def __getitem__(self, position: int) -> Row:
        image, image_size, text, about = self.rows[position].tolist()
        return Row((image * BLOCK, image_size), (text * BLOCK, about >> 8), about & 255)

    def positions(self, bits: int, vocabulary: np.ndarray | None = None) -> np.ndarray:
        """(N,) int64: the records that have all of `bits` and, if given, a relation of the `vocabulary`, increasing."""
        fit = self.rows[:, 3] & np.uint32(bits) == bits
        if vocabulary is not None:
            pairs = np.load(BytesIO(self._data[self._end :]))
            self._check(pairs.dtype == PREDICATE, "holds no predicates behind its rows")
            known = np.zeros(len(fit), bool)
            known[pairs["record"][np.isin(pairs["key"], vocabulary)]] = True
            fit &= known
        return np.flatnonzero(fit)

    def _check(self, sound: bool, fault: str) -> None:
        if not sound:
            raise UserError(f"{self.path}: {fault} {_mend(self.path)}")


def check_is_there(path: Path) -> None:
    """Raise UserError where an index is missing."""
    if not path.is_file():
        raise UserError(f"{path}: missing, though manifest.json lists it {_mend(path)}")


def _mend(path: Path) -> str:
    return f"(copy it again, or run: relvlm data index {path.parent})"
