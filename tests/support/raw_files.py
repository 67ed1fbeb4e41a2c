"""Raw annotation files in the official forms, a few records each."""

import argparse
import io
import json
import tarfile
import zlib

from PIL import Image

from relvlm.data.sources import scene_graphs


def run(source, *flags):
    parser = argparse.ArgumentParser()
    source.add_arguments(parser)
    return source.main(parser.parse_args([str(flag) for flag in flags]))


def photo(path, size=(40, 30)):
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", size).save(path, "JPEG")


def dump(path, content):
    path.write_text(json.dumps(content))
    return path


def coco_files(folder, boxes=((1, 2, 10, 10),), name="7.jpg"):
    images = [{"id": 7, "file_name": name, "width": 40, "height": 30}]
    captions = {"images": images, "annotations": [{"id": 1, "image_id": 7, "caption": " A  dog.\n"}]}
    annotations = [{"id": n, "image_id": 7, "category_id": 18, "bbox": b} for n, b in enumerate(boxes)]
    instances = {"images": images, "annotations": annotations, "categories": [{"id": 18, "name": "dog"}]}
    return dump(folder / "captions.json", captions), dump(folder / "instances.json", instances)


def node(object_id, name, box=(0, 0, 10, 10), **more):
    return {"object_id": object_id, "name": name, **dict(zip("xywh", box, strict=True)), **more}


def vg_graph(relationships, attributes=(), size=None):
    records = [{"subject": s, "predicate": p, "object": o} for s, p, o in relationships]
    return scene_graphs.ImageGraph("1", records, list(attributes), [], size)


def gqa_graph():
    man = {"name": "man", "x": 1, "y": 2, "w": 10, "h": 20, "attributes": ["tall"]}
    man["relations"] = [{"name": "to the left of", "object": "9"}, {"name": "riding", "object": "9"}]
    man["relations"].append({"name": "holding", "object": "11"})  # a rope without width
    horse = {"name": "horse", "x": 20, "y": 2, "w": 50, "h": 20, "attributes": [], "relations": []}
    thin = {"name": "rope", "x": 0, "y": 0, "w": 0, "h": 5, "relations": [{"name": "on", "object": "9"}]}
    return {"width": 40, "height": 30, "objects": {"5": man, "9": horse, "11": thin}}


def vg_flags(shared):
    folder = shared / "data" / "vg"
    return ("--relationships", folder / "relationships.json", "--attributes", folder / "attributes.json")


def web_photos(folder, names, size=(40, 30)):
    for name in names:
        photo(folder / name, size)
    return folder


def encoded(kind="JPEG", size=(40, 30), color="red"):
    stream = io.BytesIO()
    Image.new("RGB", size, color).save(stream, kind)
    return stream.getvalue()


def tar_of(path, members):
    """A tar of (name, bytes), as img2dataset writes it."""
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def img2dataset_members(key, caption, url="https://a.org/b.jpg", kind="jpg"):
    """What img2dataset 1.4x puts into a tar for a photo that it could download."""
    described = {"caption": caption, "url": url, "key": key, "status": "success", "error_message": None}
    described |= {"width": 40, "height": 30, "original_width": 80, "original_height": 60, "exif": "{}", "sha256": "0"}
    color = f"#{zlib.crc32(key.encode()) & 0xFFFFFF:06x}"  # each photo another
    image = encoded("WEBP" if kind == "webp" else "JPEG", color=color)
    return [(f"{key}.{kind}", image), (f"{key}.json", json.dumps(described).encode()), (f"{key}.txt", caption.encode())]
