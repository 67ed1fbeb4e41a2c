"""The hidden folder in which a build grows, and which the same command goes on with after whatever ended it."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from relvlm.data.shards.manifest import MANIFEST, read_manifest
from relvlm.data.shards.store import check_free
from relvlm.data.sources.shard_task import JOURNAL, write_whole
from relvlm.data.sources.workers import InterruptedBuild
from relvlm.errors import UserError

BUILD = "build.json"


@contextmanager
def unfinished(out: Path, identity: dict[str, Any]) -> Iterator[Path]:
    """The folder, which becomes `out` at the end, without its journal.

    It is removed by an error in the input, and kept by anything else. Raises UserError where `out` is taken, where
    another process builds it, or where what is there was begun with another `identity` (plain JSON).
    """
    check_free(out)
    folder = out.with_name(f".{out.name}.building")
    with _locked(folder):
        _begin(folder, identity)
        try:
            yield folder
        except InterruptedBuild as error:
            raise InterruptedBuild(f"{folder}: {error}; the same command goes on from there") from error
        except (UserError, ValueError):
            shutil.rmtree(folder, ignore_errors=True)
            raise
        shutil.rmtree(folder / JOURNAL)
        folder.rename(out)


def complete(folder: Path) -> dict[str, Any] | None:
    """The manifest of a build that was ended between its last file and its new name."""
    return read_manifest(folder) if (folder / MANIFEST).is_file() else None


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    lock = folder.with_name(f"{folder.name}.lock")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    except OSError as error:
        out = folder.with_name(folder.name[1 : -len(".building")])
        why = os.strerror(errno.ENOTDIR) if isinstance(error, FileExistsError) else error.strerror
        raise UserError(f"{out}: cannot be made: {why} (choose another --out)") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
        lock.unlink(missing_ok=True)
    except BlockingIOError as error:
        raise UserError(f"{folder}: another build is at work there (wait for it, or choose another --out)") from error
    except UserError:
        lock.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def _begin(folder: Path, identity: dict[str, Any]) -> None:
    (folder / JOURNAL).mkdir(parents=True, exist_ok=True)
    file = folder / JOURNAL / BUILD
    if not file.exists() and not (folder / MANIFEST).exists():
        write_whole(file, json.dumps(identity))
    begun = json.loads(file.read_bytes()) if file.exists() else identity
    if begun != identity:
        differ = ", ".join(sorted(k for k in {*begun, *identity} if begun.get(k) != identity.get(k)))
        raise InterruptedBuild(f"begun with other input or arguments: {differ} (remove the folder to start anew)")
