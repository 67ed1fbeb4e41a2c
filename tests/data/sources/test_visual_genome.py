"""Visual Genome as a shard set, or parsed alone."""

import json

import pytest
from support.raw_files import photo, run, vg_flags

from relvlm.data.shards.schema import Sample
from relvlm.data.shards.store import ShardSet
from relvlm.data.sources import visual_genome
from relvlm.errors import UserError


def test_vg_parses_the_genuine_annotation(shared, tmp_path, capsys):
    assert run(visual_genome, *vg_flags(shared), "--parse-only", "--out", tmp_path / "vg") == 0
    lines = (tmp_path / "vg" / "samples.jsonl").read_text().splitlines()
    samples = {s.image_id: s for s in (Sample.from_json(json.loads(line)) for line in lines)}
    assert list(samples) == ["1", "2", "3"]
    said = set()
    for sample in samples.values():
        name = {e.id: e.label for e in sample.entities}
        said |= {(name[r.subject], r.predicate, name[r.object]) for r in sample.relations}
    assert {("shade", "on", "sidewalk"), ("man", "wears", "shoes")} <= said
    clock = next(e for e in samples["1"].entities if e.id == "1058498")
    assert (clock.label, clock.box, clock.attributes) == ("clock", (421, 91, 500, 430), ("green", "tall"))
    predicates = (tmp_path / "vg" / "relations.txt").read_text().splitlines()
    assert predicates == sorted(predicates) and {"on", "in", "wearing"} <= set(predicates)
    figures = json.loads((tmp_path / "vg" / "statistics.json").read_text())
    assert figures["totals"]["images"] == 3
    assert figures["totals"]["relations"] == sum(len(s.relations) for s in samples.values()) > 80
    assert "predicates" in capsys.readouterr().out


@pytest.mark.parametrize("flag", ["--overlap", "--unlike", "--max-side"])
def test_vg_parsed_alone_refuses_what_it_would_not_do(shared, tmp_path, flag):
    with pytest.raises(UserError, match=f"{flag}: not with --parse-only"):
        run(visual_genome, *vg_flags(shared), "--parse-only", flag, "9", "--out", tmp_path / "vg")


def test_vg_builds_shards_where_photos_are(shared, tmp_path, capsys):
    photo(tmp_path / "photos" / "2.jpg", (800, 600))
    flags = ("--images", tmp_path / "photos", "--out", tmp_path / "vg")
    assert run(visual_genome, *vg_flags(shared), *flags) == 0
    shards = ShardSet(tmp_path / "vg")
    assert len(shards) == 1 and (shards.read(0).sample.width, shards.read(0).sample.height) == (800, 600)
    assert (tmp_path / "vg" / "skipped.txt").read_text().splitlines() == [
        "1.jpg: no such photo",
        "3.jpg: no such photo",
    ]
    assert "skipped 2 photos in all" in capsys.readouterr().err


def test_vg_without_photos_points_to_parse_only(shared, tmp_path):
    with pytest.raises(UserError, match="--parse-only"):
        run(visual_genome, *vg_flags(shared), "--out", tmp_path / "vg")
