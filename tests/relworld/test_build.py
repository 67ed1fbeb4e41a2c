"""The world as a folder: complete, reproducible, nothing overwritten unasked."""

import argparse
import json
from pathlib import Path

import pytest
from PIL import Image
from support.worlds import fingerprint, objects, svo, vsr

from relvlm.data.shards.store import ShardSet
from relvlm.errors import UserError
from relvlm.relworld.build import add_arguments, build, main, write_benchmarks
from relvlm.relworld.config import PRESETS, WorldConfig, world_config


def test_build_writes_the_whole_layout_and_equals_itself(tmp_path: Path) -> None:
    for name, workers in (("a", 1), ("b", 2)):
        build(tmp_path / name, 60, 3, preset="mini", workers=workers, benchmark_pairs=40)
    files = {p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file()}
    assert files == {p.relative_to(tmp_path / "b") for p in (tmp_path / "b").rglob("*") if p.is_file()}
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)
    assert {p.name for p in (tmp_path / "a").iterdir()} == set(
        ["captions", "entities", "graphs", "benchmarks", "vocab.txt", "relations.txt", "world.json"]
    )
    relations = (tmp_path / "a" / "relations.txt").read_text().split("\n")[:-1]
    assert relations == sorted(PRESETS["mini"].predicates)


def test_overwrite_replaces_the_old_world(tmp_path: Path) -> None:
    out = tmp_path / "world"
    out.mkdir()
    (out / "old.txt").write_text("old")
    build(out, 20, 0, preset="mini", workers=1, overwrite=True, benchmark_pairs=40)
    assert not (out / "old.txt").exists()
    assert json.loads((out / "world.json").read_text())["arguments"]["preset"] == "mini"
    assert [p.name for p in tmp_path.iterdir()] == ["world"]


@pytest.mark.parametrize(("images", "knobs"), [(21, ()), (20, ("--graph-fraction=0.9", "--entity-fraction=0.09"))])
def test_the_command_says_how_many_images_there_are(
    tmp_path: Path, capsys: pytest.CaptureFixture, images: int, knobs: tuple[str, ...]
) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    flags = ["--preset=mini", "--benchmark-pairs=40", "--workers=1", f"--images={images}", *knobs]
    main(parser.parse_args([*flags, "--out", str(tmp_path / "world")]))
    sets = (ShardSet(tmp_path / "world" / name) for name in ("captions", "entities", "graphs"))
    assert sum(map(len, sets)) == 22 and "22 training images" in capsys.readouterr().out


def test_what_a_killed_build_left_is_in_nobodys_way(tmp_path: Path) -> None:
    for folder in ("world", ".world.old"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "left").write_text("")
    build(tmp_path / "world", 20, 0, preset="mini", benchmark_pairs=40, workers=1, overwrite=True)
    assert (tmp_path / "world" / "world.json").exists() and (tmp_path / ".world.old" / "left").exists()


def test_a_taken_folder_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(UserError, match="--overwrite"):
        build(tmp_path, 20, 0, preset="mini")
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_too_few_images_are_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="images: 3"):
        build(tmp_path / "w", 3, 0)
    assert not any(tmp_path.iterdir())


def test_no_evaluation_image_is_a_training_image(tmp_path: Path) -> None:
    build(tmp_path / "w", 200, 0, preset="mini", workers=1, benchmark_pairs=40)
    evaluation = {p.read_bytes() for p in (tmp_path / "w" / "benchmarks" / "images").rglob("*.jp*g")}
    for name in ("captions", "entities", "graphs"):
        shards = ShardSet(tmp_path / "w" / name)
        assert not evaluation & {shards.read(i).image for i in range(len(shards))}


def named_images(folder: Path) -> set[str]:
    names = {row["image"] for split in ("dev", "test") for row in vsr(folder, split)}
    names |= {f"{row[k]}.jpg" for row in svo(folder) for k in ("pos_image_id", "neg_image_id")}
    for records in objects(folder, "valse").values():
        names |= {record["image_file"] for record in records.values()}
    for records in objects(folder, "sugarcrepe").values():
        names |= {record["filename"] for record in records.values()}
    names |= {f"{r['image_id']}.jpg" for r in json.loads((folder / "paragraphs/paragraphs_v1.json").read_text())}
    return names | {i["filename"] for i in json.loads((folder / "coco/karpathy.json").read_text())["images"]}


def test_every_named_image_is_there(folder: Path, config: WorldConfig) -> None:
    for image in named_images(folder):
        with Image.open(folder / "images" / image) as picture:
            assert picture.size == (config.image_size, config.image_size)


def test_a_folder_that_cannot_be_made_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be made: Not a directory"):
        build(tmp_path / "file" / "world", 20, 0, preset="mini")


def test_it_takes_a_process_to_draw(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(["--out", str(tmp_path / "w"), "--workers", "0"])
    assert "--workers: '0' is no whole number above 0" in capsys.readouterr().err


def test_what_was_begun_is_gone_after_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relvlm.relworld.build.write_benchmarks", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        build(tmp_path / "w", 20, 0, preset="mini", workers=1)
    assert not any(tmp_path.iterdir())


def test_a_world_that_cannot_be_drawn_is_one_error(tmp_path: Path) -> None:
    crowded = {"min_objects": 8, "max_objects": 8}
    with pytest.raises(UserError, match=r"relworld: no scene of 8 .* after 400 tries \(fewer or smaller"):
        build(tmp_path / "world", 20, 0, preset="mini", workers=1, **crowded)
    assert not list(tmp_path.iterdir())


def test_files_of_a_world_are_the_same_in_every_version(tmp_path: Path) -> None:
    build(tmp_path / "w", 20, 0, preset="mini", workers=1, benchmark_pairs=40)
    names = ("vocab.txt", "relations.txt", "world.json")
    assert fingerprint([(tmp_path / "w" / name).read_text() for name in names]) == "f92d6d0efc3f"


def test_defaults_of_the_flags(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    args = parser.parse_args(["--out", str(tmp_path)])
    assert (args.images, args.seed, args.preset, args.workers, args.overwrite) == (20000, 0, "full", 2, False)
    assert args.image_size is args.benchmark_pairs is None
    assert "pixels a side (full 64, mini 32, small 32)" in " ".join(parser.format_help().split())


def test_what_came_later_leaves_the_first_benchmarks_as_they_were(tmp_path: Path) -> None:
    write_benchmarks(tmp_path / "b", world_config("mini", benchmark_pairs=40), seed=0)
    first = ("vsr", "svo", "valse", "sugarcrepe", "paragraphs", "coco")
    files = [path for name in first for path in sorted((tmp_path / "b" / name).iterdir())]
    assert fingerprint([(path.name, path.read_text()) for path in files]) == "4c9efdbb13d5"
    pictures = sorted((tmp_path / "b/images").glob("*.jpg"))[:100]
    assert fingerprint([path.read_bytes() for path in pictures]) == "92e3d5e61ee2"


def test_an_empty_folder_and_the_fewest_images_are_enough(tmp_path: Path) -> None:
    build(tmp_path, 20, 0, preset="mini", workers=1, benchmark_pairs=40)
    assert (tmp_path / "world.json").exists()
    with pytest.raises(UserError, match="images: 19 is too few"):
        build(tmp_path, 19, 0)


def test_a_file_in_the_place_of_the_folder_is_refused_or_replaced(tmp_path: Path) -> None:
    out = tmp_path / "w"
    out.write_text("precious")
    with pytest.raises(UserError, match="not an empty folder"):
        build(out, 20, 0, preset="mini")
    build(out, 20, 0, preset="mini", workers=1, overwrite=True, benchmark_pairs=40)
    assert [p.name for p in tmp_path.iterdir()] == ["w"] and out.is_dir()
