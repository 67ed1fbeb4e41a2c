"""The photos of an annotation's names: where they may lie, and which files stand in for another name."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from relvlm.errors import UserError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


@dataclass(frozen=True)
class DataSet:
    """A data set of photos: the folders that it comes in, where no other's photos lie, and what its names look like.

    `prefix`: what benchmarks put before its names; without it, the name is that of the same photo. `distinct`:
    whether a name is told from those of all other data sets (COCO's twelve digits are, Visual Genome's ids are not).
    """

    folders: tuple[str, ...]
    name: str
    prefix: str = ""
    distinct: bool = False


COCO = DataSet(
    ("train2014", "val2014", "test2014", "train2017", "val2017", "test2017", "unlabeled2017"),
    r"(COCO_(train|val|test)2014_)?\d{12}",
    r"COCO_(train|val|test)2014_",
    distinct=True,
)
VISUAL_GENOME = DataSet(("VG_100K", "VG_100K_2"), r"(v7w_)?\d{1,7}", "v7w_")
FLICKR30K = DataSet(("flickr30k-images", "flickr30k_images"), r"\d{5,11}")
DATA_SETS = (COCO, VISUAL_GENOME, FLICKR30K)


@dataclass(frozen=True)
class Images:
    """The file of each name; `substituted`: those whose file has another name or folder, by their file's name.

    `missing`: names without file. `ambiguous`: names that several files fit, and these.
    """

    paths: dict[str, Path]
    substituted: dict[str, str]
    missing: tuple[str, ...]
    ambiguous: dict[str, str]


def locate(folder: Path, names: Iterable[str], data_sets: Sequence[DataSet] = DATA_SETS) -> Images:
    """The images of these names; `data_sets`: those whose photos the names may be of, by their folders."""
    paths: dict[str, Path] = {}
    substituted: dict[str, str] = {}
    missing: list[str] = []
    ambiguous: dict[str, str] = {}
    for name in dict.fromkeys(names):
        files, exact = _search(folder, name, data_sets)
        if len(files) == 1:
            paths[name] = files[0]
            if not exact:
                substituted[name] = str(files[0].relative_to(folder))
        elif files:
            ambiguous[name] = ", ".join(os.path.relpath(file, folder) for file in files)
        else:
            missing.append(name)
    return Images(paths, substituted, tuple(missing), ambiguous)


def find_image(folder: Path, name: str, data_sets: Sequence[DataSet] = DATA_SETS) -> Path | None:
    """The one image file of an annotation's name; None where there is none, or several that it could be.

    Tried in turn: the name in `folder` (also where it begins with the folder's own name); the whole name in one of
    its subfolders; the name without a data set's folder (`val2014/`) and prefix (`COCO_val2014_`, `v7w_`), in
    `folder` and where that data set's photos lie. A name without an image suffix may have any.
    """
    files, _ = _search(folder, name, data_sets)
    return files[0] if len(files) == 1 else None


def _search(folder: Path, name: str, data_sets: Sequence[DataSet]) -> tuple[list[Path], bool]:
    """Files that fit best, and whether they have the very name."""
    subfolders = _subfolders(folder)
    exact = _files([folder], name) or _files([folder.absolute().parent], name, within=folder)
    if exact:
        return exact, True
    for shorter in dict.fromkeys((name, *_without_folder(name, data_sets), *_without_prefix(name, data_sets))):
        found = _files(_places(folder, subfolders, name, shorter, data_sets), shorter)
        if found:
            return found, False
    return [], False


def _places(
    folder: Path, subfolders: Sequence[Path], name: str, shorter: str, data_sets: Sequence[DataSet]
) -> list[Path]:
    """Where photos of this name lie: not in the folders of other data sets."""
    if "/" in shorter:
        return []
    own = [d for d in data_sets if re.fullmatch(d.name, _stem(shorter)) and _is_of(name, d)]
    ours = {f for d in own for f in d.folders}
    theirs = {f for d in DATA_SETS for f in d.folders} - ours
    anywhere = name == shorter or any(d.distinct for d in own)
    return [folder, *(f for f in subfolders if f.name in ours or (anywhere and f.name not in theirs))]


def _is_of(name: str, data_set: DataSet) -> bool:
    """Whether the folder and the prefix that a name has, if any, are this data set's."""
    folder, _, last = name.rpartition("/")
    return (not folder or folder in data_set.folders) and bool(re.fullmatch(data_set.name, _stem(last)))


def _without_folder(name: str, data_sets: Sequence[DataSet]) -> Iterator[str]:
    last = name.rpartition("/")[2]
    if last != name and any(_is_of(name, d) for d in data_sets):
        yield last


def _without_prefix(name: str, data_sets: Sequence[DataSet]) -> Iterator[str]:
    last = name.rpartition("/")[2]
    for data_set in data_sets:
        shorter = re.sub(f"^{data_set.prefix}", "", last) if data_set.prefix else last
        if shorter != last and _is_of(name, data_set):
            yield shorter


def _files(directories: Iterable[Path], name: str, within: Path | None = None) -> list[Path]:
    """Files of this name; only where it leads into `within`, if given."""
    if within is not None and name.partition("/")[0] != within.absolute().name:
        return []
    return [file for directory in directories for file in _with_suffix(directory / name)]


def _with_suffix(path: Path) -> list[Path]:
    if os.path.isfile(path):  # unlike Path.is_file, False for names that no file can have
        return [path]
    if path.name.lower().endswith(IMAGE_SUFFIXES):
        return []
    files = (path.with_name(path.name + suffix) for suffix in IMAGE_SUFFIXES if path.name)
    return [file for file in files if os.path.isfile(file)]


def _stem(name: str) -> str:
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in IMAGE_SUFFIXES else name


@lru_cache(maxsize=8)
def _subfolders(folder: Path) -> tuple[Path, ...]:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder (give --images)")
    return tuple(sorted(p for p in folder.iterdir() if p.is_dir()))
