"""Files fetched from an address: again where that fails, and told in one line where it fails every time."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

from relvlm import storage
from relvlm.data.shards.address import CHUNK, Address, open_address
from relvlm.errors import UserError

PAUSE_S = 1.0  # before the second try; twice as long before each further one
LARGEST = 1 << 30  # bytes of a file whose size no manifest says
Result = TypeVar("Result")
_log = logging.getLogger(__name__)


class Corrupt(Exception):
    """Bytes that are not those that the manifest lists."""


def read_address(address: Address, tries: int) -> bytes:
    """All bytes of a small file; FileNotFoundError where there is none, UserError where no try succeeds."""
    return again(address, tries, lambda: b"".join(_chunks(address, LARGEST)))


def fetch(address: Address, into: BinaryIO, size: int | None, digest: str) -> None:
    """Write the file into a stream from its start on; raises Corrupt for another size or SHA-256."""
    sha256, count = hashlib.sha256(), 0
    for chunk in copied(address, into, LARGEST if size is None else size, "data.cache.folder"):
        sha256.update(chunk)
        count += len(chunk)
    if size is not None and count != size:
        raise Corrupt(f"{count} bytes came, manifest.json says {size}")
    if sha256.hexdigest() != digest:
        raise Corrupt("SHA-256 is not that of manifest.json")


def copied(address: Address, into: BinaryIO, most: int, field: str) -> Iterator[bytes]:
    """The parts of a file, each written into a stream, which ends as long as the file is; `field` says where to."""
    into.seek(0)
    for chunk in _chunks(address, most):
        with storage.writing(Path(into.name), field):
            into.write(chunk)
        yield chunk
    into.truncate()


def _chunks(address: Address, most: int) -> Iterator[bytes]:
    with contextlib.closing(open_address(address)) as stream:
        count = 0
        while chunk := stream.read(CHUNK):
            count += len(chunk)
            if count > most:
                raise Corrupt(f"more than {most} bytes came")
            yield chunk


def again(address: Address, tries: int, action: Callable[[], Result]) -> Result:
    """What the action gives at the first try that succeeds; what is not there, or forbidden, is asked for once."""
    for number in range(1, tries + 1):
        try:
            return action()
        except PermissionError as error:
            raise UserError(f"{address}: may not be read: {error} (are the credentials set?)") from error
        except (UserError, FileNotFoundError):  # of which one is a full disk
            raise
        except Exception as error:  # each store's package raises its own
            said = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            if number == tries:
                raise UserError(
                    f"{address}: cannot be fetched, {tries} tries; the last: {said} (is it whole? data.cache.tries)"
                ) from error
            _log.warning("%s: %s (try %d of %d)", address, said, number, tries)
        time.sleep(PAUSE_S * 2 ** (number - 1))
    raise AssertionError("tries is 1 or more")
