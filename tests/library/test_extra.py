"""Who installs the extra `demo` alone explains, points, scores, searches and serves."""

from pathlib import Path

import pytest
from support.extras import command, run_with
from support.shards import write_toys


@pytest.mark.slow
def test_photos_of_ones_own_need_no_library_of_training(checkpoint: Path, photos: list[Path], tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("a man\n")
    model, shards = ["--checkpoint", checkpoint], write_toys(tmp_path / "set", 2)
    program = command("explain", photos[0], "man; on; horse", *model, "--out", tmp_path / "page.html")
    program += command("explain", "--pointing", shards, *model, "--out", tmp_path / "lines.jsonl")
    program += command("score", photos[0].parent, tmp_path / "texts.txt", *model)
    program += command("search", photos[0].parent, "a man", *model, "--out", tmp_path / "sheet.html")
    said = run_with("demo", program + "import relvlm.library.demo_cli\n")
    assert "page.html" in said and '"photos": 2' in said and "image,a man" in said
    assert (tmp_path / "sheet.html").exists()
