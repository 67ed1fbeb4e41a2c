"""`relvlm score`: CSV, JSON, what is printed and what is wrong."""

import argparse
import csv
import io
import json
from pathlib import Path

import pytest

from relvlm.errors import UserError
from relvlm.library import score_cli
from relvlm.library.score import score
from relvlm.model import RelVLM

TEXTS = ['a man, "riding"', "dogs"]


def run(*arguments: str) -> None:
    parser = argparse.ArgumentParser()
    score_cli.add_arguments(parser)
    score_cli.main(parser.parse_args(arguments))


@pytest.fixture()
def texts(tmp_path: Path) -> str:
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS))
    return str(tmp_path / "texts.txt")


def test_csv_has_a_row_a_photo_and_a_column_a_text(
    checkpoint: Path, model: RelVLM, photos: list[Path], texts: str, tmp_path: Path
) -> None:
    out = tmp_path / "new/scores.csv"
    run(str(photos[0].parent), texts, "--checkpoint", str(checkpoint), "--out", str(out))
    header, *rows = csv.reader(io.StringIO(out.read_text()))
    assert header == ["image", *TEXTS] and [row[0] for row in rows] == [str(path) for path in photos]
    cells = [float(cell) for row in rows for cell in row[1:]]
    assert cells == pytest.approx(score(model, photos, TEXTS).flatten().tolist(), abs=1e-5)


def test_json_has_the_same(checkpoint: Path, model: RelVLM, photos: list[Path], texts: str, tmp_path: Path) -> None:
    out = tmp_path / "scores.json"
    run(*map(str, photos[:2]), texts, "--checkpoint", str(checkpoint), "--out", str(out), "--batch-size", "1")
    found = json.loads(out.read_text())
    assert found["images"] == [str(path) for path in photos[:2]] and found["texts"] == TEXTS
    cells = [cell for row in found["scores"] for cell in row]
    assert cells == pytest.approx(score(model, photos[:2], TEXTS).flatten().tolist(), abs=1e-5)
    assert found["score"] == "match probability"


def test_without_out_csv_is_printed_and_texts_may_come_from_standard_input(
    checkpoint: Path, photos: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("a man\n"))
    run(str(photos[0]), "-", "--checkpoint", str(checkpoint))
    assert capsys.readouterr().out.splitlines()[0] == "image,a man"


@pytest.mark.parametrize("out", ["scores.txt", "scores", "{file}/scores.csv"])
def test_a_wrong_out_is_refused_before_any_work(out: str, photos: list[Path], texts: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--out"):
        run(str(photos[0]), texts, "--checkpoint", "none", "--out", out.format(file=photos[0]))
    assert not list(tmp_path.glob("scores*"))
