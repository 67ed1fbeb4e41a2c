"""metrics.csv: its rows, and what a resumed run keeps of them."""

import csv
import io
from pathlib import Path
from types import SimpleNamespace

import pytest

from relvlm.engine import metrics_csv
from relvlm.engine.metrics_csv import MetricsCsv
from relvlm.errors import UserError

COLUMNS = ["step", "lr", "skipped", "data_s", "mfu", "a/itc", "b/mrc"]


def row(step: int) -> dict[str, object]:
    return {"step": step, "lr": 1e-4 * step, "skipped": step // 2, "data_s": 1 / 3, "mfu": None, "a/itc": step / 3}


def log(folder: Path, start: int, steps: range, columns: list[str] = COLUMNS) -> MetricsCsv:
    made = MetricsCsv(folder / "metrics.csv", columns, start)
    for step in steps:
        made.write([row(step)])
    return made


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_losses_are_whole_clocks_short_and_what_is_not_known_blank(tmp_path):
    log(tmp_path, 0, range(2, 3))
    assert list(rows(tmp_path)[0].items()) == list(
        {
            "step": "2", "lr": "0.0002", "skipped": "1", "data_s": "0.333333", "mfu": "", "a/itc": str(2 / 3),
            "b/mrc": "",
        }.items()
    )  # fmt: skip


def test_a_resumed_run_drops_the_rows_after_its_checkpoint(tmp_path):
    log(tmp_path, 0, range(1, 7))
    before = rows(tmp_path)
    log(tmp_path, 4, range(5, 8))
    found = rows(tmp_path)
    assert [row["step"] for row in found] == [str(s) for s in range(1, 8)]
    assert found[:4] == before[:4]


def test_a_line_torn_by_a_kill_is_dropped(tmp_path):
    log(tmp_path, 0, range(1, 5))
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("3")  # of step 30
    log(tmp_path, 4, range(5, 6))
    assert [row["step"] for row in rows(tmp_path)] == ["1", "2", "3", "4", "5"]


def test_a_new_run_starts_the_file_anew(tmp_path):
    log(tmp_path, 0, range(1, 7))
    log(tmp_path, 0, range(1, 3))
    assert [row["step"] for row in rows(tmp_path)] == ["1", "2"]


def test_kinds_that_come_or_go_at_a_resume_keep_the_columns_straight(tmp_path):
    log(tmp_path, 0, range(1, 3)).write([row(3) | {"b/mrc": 1.0}])
    log(tmp_path, 3, range(4, 5), ["step", "c/itc", "a/itc", "lr", "skipped", "data_s", "mfu"])
    found = rows(tmp_path)
    assert list(found[0])[-1] == "b/mrc" and [each["b/mrc"] for each in found] == ["", "", "1.0", ""]
    assert found[0]["c/itc"] == found[3]["c/itc"] == ""
    assert float(found[1]["a/itc"]) == 2 / 3 and float(found[3]["a/itc"]) == 4 / 3


def test_half_a_row_is_taken_back(tmp_path, monkeypatch):
    made = log(tmp_path, 0, range(1, 2))
    before, whole = (tmp_path / "metrics.csv").read_text(), metrics_csv._write_all

    def part(file: io.RawIOBase, data: bytes) -> None:
        whole(SimpleNamespace(write=lambda data: file.write(data[:9])), data)

    with monkeypatch.context() as broken:
        broken.setattr(metrics_csv, "_write_all", part)
        with pytest.raises(OSError, match="No space left"):
            made.write([row(2)])
    assert (tmp_path / "metrics.csv").read_text() == before


def test_a_log_that_cannot_even_begin_is_an_error(tmp_path):
    (tmp_path / "metrics.csv").mkdir()
    with pytest.raises(UserError, match=r"metrics\.csv: cannot be written: "):
        MetricsCsv(tmp_path / "metrics.csv", COLUMNS, 0)
