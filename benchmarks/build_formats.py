"""The raw files that build.py builds from: of `count` photos each, in the official forms, with the builder's flags."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL import Image

SIZE = {"width": 64, "height": 48}
LINKS = 50_000  # names of one file; file systems know a limit
TAR = 10_000  # photos of a tar
GRAPH = {
    **SIZE,
    "objects": {
        str(n): {
            "name": "dog",
            "x": n,
            "y": 2,
            "w": 9,
            "h": 9,
            "attributes": ["red"],
            "relations": [{"name": "near", "object": str((n + 1) % 16)}],
        }
        for n in range(16)
    },
}


def write_photos(folder: Path, count: int) -> None:
    """`count` files of one picture: a builder does not compare them."""
    folder.mkdir()
    data = picture()
    for n in range(count):
        first = folder / f"{n - n % LINKS}.jpg"
        if n % LINKS:
            os.link(first, folder / f"{n}.jpg")
        else:
            first.write_bytes(data)


def picture() -> bytes:
    """A JPEG of 64 x 48."""
    stream = io.BytesIO()
    Image.effect_noise((64, 48), 60).convert("RGB").save(stream, "JPEG")
    return stream.getvalue()


def write_json(file: Path, lists: dict[str, Iterable[Any]] | Iterable[Any]) -> Path:
    """A list, or an object of lists, written item by item."""
    with file.open("w") as stream:
        named = isinstance(lists, dict)
        parts = lists.items() if isinstance(lists, dict) else [("", lists)]
        for number, (name, items) in enumerate(parts):
            stream.write(("{" if number == 0 else ", ") + f'"{name}": ' if named else "")
            stream.write("[")
            for place, item in enumerate(items):
                stream.write((", " if place else "") + json.dumps(item))
            stream.write("]")
        stream.write("}" if named else "")
    return file


def caption(n: int) -> str:
    return f"a dog, number {n}"


def write_gqa(folder: Path, count: int) -> list[str]:
    """Scene graphs of 16 objects."""
    file = folder / f"graphs{count}.json"
    graph = json.dumps(GRAPH)
    with file.open("w") as stream:
        stream.write("{")
        stream.writelines(f'{", " if n else ""}"{n}": {graph}' for n in range(count))
        stream.write("}")
    return ["gqa", "--scene-graphs", str(file), "--images", str(folder / "photos")]


def write_cc3m(folder: Path, count: int) -> list[str]:
    """A table of captions and addresses (CC12M's has its columns the other way round)."""
    file = folder / f"captions{count}.tsv"
    file.write_text("".join(f"{caption(n)}\thttps://a.org/{n}.jpg\n" for n in range(count)))
    return ["cc3m", "--table", str(file), "--images", str(folder / "photos"), "--photo-name", "{url_name}"]


def write_sbu(folder: Path, count: int) -> list[str]:
    """The release's two files of a line a photo."""
    urls, captions = folder / f"urls{count}.txt", folder / f"sbu_captions{count}.txt"
    urls.write_text("".join(f"http://static.flickr.com/1/{n}.jpg\n" for n in range(count)))
    captions.write_text("".join(f"{caption(n)}\n" for n in range(count)))
    return ["sbu", "--urls", str(urls), "--captions", str(captions), "--images", str(folder / "photos")]


def write_coco(folder: Path, count: int) -> list[str]:
    """Five captions and seven boxes a photo."""
    texts = {"annotations": ({"id": n, "image_id": n // 5, "caption": caption(n)} for n in range(5 * count))}
    captions = write_json(folder / f"captions{count}.json", {"images": _images(count), **texts})
    instances = write_json(folder / f"instances{count}.json", _instances(count, "{}.jpg"))
    flags = ["--captions", str(captions), "--instances", str(instances)]
    return ["coco", *flags, "--images", str(folder / "photos")]


def write_objects365(folder: Path, count: int) -> list[str]:
    """Seven boxes a photo."""
    file = write_json(folder / f"objects365_{count}.json", _instances(count, "images/v2/photos/{}.jpg"))
    return ["objects365", "--annotations", str(file), "--images", str(folder)]


def _images(count: int, name: str = "{}.jpg") -> Iterable[Any]:
    return ({"id": n, "file_name": name.format(n), **SIZE} for n in range(count))


def _instances(count: int, name: str) -> dict[str, Iterable[Any]]:
    boxes = (
        {"id": n, "image_id": n // 7, "category_id": 1, "iscrowd": 0, "bbox": [n % 7, 2, 9, 9]}
        for n in range(7 * count)
    )
    return {"images": _images(count, name), "annotations": boxes, "categories": [{"id": 1, "name": "dog"}]}


def write_flickr30k(folder: Path, count: int) -> list[str]:
    """Karpathy's file: five sentences a photo."""
    sentences = [{"raw": caption(n), "tokens": caption(n).split()} for n in range(5)]
    records = ({"filename": f"{n}.jpg", "split": "train", "sentences": sentences} for n in range(count))
    file = write_json(folder / f"flickr{count}.json", {"images": records})
    return ["flickr30k", "--annotations", str(file), "--images", str(folder / "photos")]


def _object(n: int) -> dict[str, Any]:
    return {"object_id": n, "names": ["dog"], "x": n, "y": 2, "w": 9, "h": 9, "merged_object_ids": []}


def write_visual_genome(folder: Path, count: int) -> list[str]:
    """Eight relationships, nine objects with an attribute each, and the size of each photo."""
    related = [{"subject": _object(n), "predicate": "near", "object": _object(n + 1)} for n in range(8)]
    described = [{**_object(n), "attributes": ["red"]} for n in range(9)]
    contents = {
        "relationships": ({"image_id": n, "relationships": related} for n in range(count)),
        "attributes": ({"image_id": n, "attributes": described} for n in range(count)),
        "image-data": ({"image_id": n, **SIZE} for n in range(count)),
    }
    files = {name: write_json(folder / f"{name}{count}.json", content) for name, content in contents.items()}
    flags = [part for name, file in files.items() for part in (f"--{name}", str(file))]
    return ["visual_genome", *flags, "--images", str(folder / "photos")]


def write_vg_regions(folder: Path, count: int) -> list[str]:
    """Ten regions a photo, each a phrase with its box."""
    box = {"x": 1, "y": 2, "width": 9, "height": 9}
    regions = [{"region_id": n, "phrase": caption(n), **box} for n in range(10)]
    file = write_json(folder / f"regions{count}.json", ({"id": n, "regions": regions} for n in range(count)))
    return ["vg_regions", "--regions", str(file), "--images", str(folder / "photos"), "--as", "regions"]


def write_open_images(folder: Path, count: int) -> list[str]:
    """Seven boxes and two relationships a photo."""
    boxes, related, labels = (folder / f"{name}{count}.csv" for name in ("boxes", "vrd", "labels"))
    with boxes.open("w") as stream:
        stream.write("ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf\n")
        stream.writelines(f"{n // 7},xclick,/m/0,1,0.{n % 7},0.9,0.1,0.9,0,0,0\n" for n in range(7 * count))
    with related.open("w") as stream:
        stream.write(
            "ImageID,LabelName1,LabelName2,XMin1,XMax1,YMin1,YMax1,XMin2,XMax2,YMin2,YMax2,RelationshipLabel\n"
        )
        one, two = "0.1,0.9,0.1,0.9", "0.2,0.9,0.1,0.9"
        stream.writelines(f"{n // 2},/m/0,/m/0,{one},{two},on\n" for n in range(2 * count))
    labels.write_text("/m/0,Dog\n")
    flags = ["--boxes", str(boxes), "--relationships", str(related), "--labels", str(labels)]
    return ["open_images", *flags, "--images", str(folder / "photos")]


def write_records(folder: Path, count: int) -> list[str]:
    """A line a photo with a caption, four entities and three relations."""
    entities = [{"id": str(n), "label": "dog", "attributes": ["red"], "box": [n, 2, n + 9, 11]} for n in range(4)]
    relations = [{"subject": str(n), "predicate": "near", "object": str(n + 1)} for n in range(3)]
    file = folder / f"records{count}.jsonl"
    with file.open("w") as stream:
        for n in range(count):
            line = {"image": f"{n}.jpg", "captions": [caption(n)], "entities": entities, "relations": relations}
            stream.write(json.dumps(line) + "\n")
    return ["records", "--jsonl", str(file), "--images", str(folder / "photos")]


def write_tars(folder: Path, count: int) -> list[str]:
    """Tars as img2dataset makes them, through webdataset's writer: photo, text, JSON."""
    from webdataset import TarWriter

    data, out = picture(), folder / f"tars{count}"
    out.mkdir()
    for first in range(0, count, TAR):
        with TarWriter(str(out / f"{first // TAR:05d}.tar"), encoder=False) as writer:
            for n in range(first, min(first + TAR, count)):
                told = {"caption": caption(n), "url": f"https://a.org/{n}.jpg", "status": "success", **SIZE}
                texts = {"txt": caption(n).encode(), "json": json.dumps(told).encode()}
                writer.write({"__key__": f"{n:09d}", "jpg": data, **texts})
    return ["cc12m", "--tars", str(out)]


def write_parquet(folder: Path, count: int) -> list[str]:
    """The Hub's form: 10,000 rows a file, 1,000 a group."""
    import pyarrow as pa
    from pyarrow import parquet

    data, files = picture(), []
    for first in range(0, count, TAR):
        rows = range(first, min(first + TAR, count))
        images = [{"bytes": data, "path": f"{n}.jpg"} for n in rows]
        file = folder / f"{count}-{first // TAR:05d}.parquet"
        table = pa.table({"image": images, "caption": [caption(n) for n in rows]})
        parquet.write_table(table, file, row_group_size=1000, use_dictionary=False)
        files.append(str(file))
    return ["parquet", "--files", *files]


FORMATS = {
    "gqa": write_gqa,
    "cc3m": write_cc3m,
    "coco": write_coco,
    "sbu": write_sbu,
    "tars": write_tars,
    "parquet": write_parquet,
    "records": write_records,
    "vg_regions": write_vg_regions,
    "visual_genome": write_visual_genome,
    "open_images": write_open_images,
    "objects365": write_objects365,
    "flickr30k": write_flickr30k,
}
