"""`relvlm search`: lines, sheet, index, and what is wrong."""

import argparse
from pathlib import Path

import pytest
from support.chromium import ABSENT, CHROMIUM, rendered

from relvlm.errors import UserError
from relvlm.library import search_cli
from relvlm.library.search import search
from relvlm.model import RelVLM


def run(*arguments: str) -> None:
    parser = argparse.ArgumentParser()
    search_cli.add_arguments(parser)
    search_cli.main(parser.parse_args(arguments))


def test_it_prints_a_line_a_hit(
    checkpoint: Path, model: RelVLM, photos: list[Path], capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    run(str(photos[0].parent), "a man", "--checkpoint", str(checkpoint), "--best", "2", "--candidates", "4")
    hits = search(model, photos[0].parent, "a man", 2, 4)
    assert capsys.readouterr().out.splitlines() == [f"{h.match:.4f} {h.cosine:+.4f} {h.path}" for h in hits]
    assert not list(tmp_path.rglob("*.npz"))


def test_the_index_lies_beside_the_sheet_unless_it_is_named(
    checkpoint: Path, photos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    photos[1].write_bytes(b"no image")
    ask = [str(photos[0].parent), "a man", "--checkpoint", str(checkpoint), "--out", str(tmp_path / "new/sheet.html")]
    run(*ask)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["sheet.html", "sheet.npz"]
    assert f"left out: {photos[1]}: not a readable image" in capsys.readouterr().err
    (tmp_path / "new/sheet.npz").unlink()
    run(*ask, "--index", str(tmp_path / "own.npz"))
    assert (tmp_path / "own.npz").exists() and not (tmp_path / "new/sheet.npz").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "sheet.png"], "--out: sheet.png: not .html"),
        (["--index", "index.pt"], "--index: index.pt: not .npz"),
        (["--best", "65"], "--best: 65 of 64 candidates"),
    ],
)
def test_what_is_wrong_is_said_before_any_work(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        run("none", "a man", "--checkpoint", "none", *arguments)


@pytest.mark.skipif(CHROMIUM is None, reason=ABSENT)
@pytest.mark.slow
def test_a_real_browser_shows_the_sheet(checkpoint: Path, photos: list[Path], tmp_path: Path) -> None:
    run(str(photos[0].parent), "a man", "--checkpoint", str(checkpoint), "--out", str(tmp_path / "sheet.html"))
    shown, console = rendered(f"file://{tmp_path}/sheet.html", tmp_path / "profile")
    assert console == [] and shown.count("<figure>") == 6
