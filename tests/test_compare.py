"""`relvlm compare`: the first difference of two logs, and what is no difference."""

import argparse
from pathlib import Path

import pytest

from relvlm import compare
from relvlm.errors import UserError

LOG = "step,dataset,lr,samples_per_s,captions/itc,mrc/mrc\n1,a,0.001,50.0,2.5,\n2,b,0.002,60.0,,4.0\n"


def run(folder: Path, log: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.csv").write_text(log)
    return folder


def compared(tmp_path: Path, other: str, *options: str) -> int:
    parser = argparse.ArgumentParser()
    compare.add_arguments(parser)
    runs = [str(run(tmp_path / "one", LOG)), str(run(tmp_path / "two", other))]
    return compare.main(parser.parse_args([*runs, *options]))


def test_equal_logs_are_the_same(tmp_path, capsys):
    assert compared(tmp_path, LOG) == 0
    assert capsys.readouterr().out == "the same: 2 rows, 5 columns (clocks left out)\n"


def test_clocks_are_no_difference(tmp_path):
    assert compared(tmp_path, LOG.replace("50.0", "51.0")) == 0


def test_order_of_columns_is_no_difference(tmp_path):
    lines = [line.split(",") for line in LOG.split()]
    assert compared(tmp_path, "\n".join(",".join(reversed(line)) for line in lines) + "\n") == 0


@pytest.mark.parametrize(
    ("was", "now", "message"),
    [
        ("2.5", "2.5000001", "step 1, column captions/itc: 2.5 and 2.5000001"),
        ("4.0", "nan", "step 2, column mrc/mrc: 4.0 and nan"),
        ("4.0", "", "step 2, column mrc/mrc: 4.0 and blank"),
        ("1,a", "1,b", "step 1, column dataset: a and b"),
        ("2,b,0.002,60.0,,4.0\n", "", "step 2 is in {one} alone"),
        ("1,a,0.001,50.0,2.5,\n", "", "step 1 is in {one} alone"),
        ("4.0\n", "4.0\n3,b,0.002,60.0,,4.0\n", "step 3 is in {two} alone"),
        ("captions/itc", "vsg/itc", "column captions/itc is in {one} alone"),
    ],
)
def test_first_difference_is_named(tmp_path, capsys, was, now, message):
    assert compared(tmp_path, LOG.replace(was, now, 1)) == 1
    names = {name: tmp_path / name / "metrics.csv" for name in ("one", "two")}
    assert capsys.readouterr().out.endswith(f"differ: {message.format(**names)}\n")


def test_a_further_column_is_a_difference(tmp_path, capsys):
    further = LOG.replace("mrc/mrc\n", "mrc/mrc,x\n").replace(",\n", ",,\n").replace("4.0\n", "4.0,\n")
    assert compared(tmp_path, further) == 1
    assert "column x is in" in capsys.readouterr().out


def test_the_earlier_step_is_named_whatever_its_column(tmp_path, capsys):
    assert compared(tmp_path, LOG.replace("2,b", "2,c").replace("2.5", "3.5")) == 1
    assert "step 1, column captions/itc" in capsys.readouterr().out


def test_steps_are_in_the_order_of_numbers(tmp_path):
    one = "step,a\n9,1\n10,1\n"
    logs = [
        compare.read_log(run(tmp_path / name, log)) for name, log in [("one", one), ("two", one.replace(",1", ",2"))]
    ]
    assert compare.difference(*logs, tolerance=0.0) == "step 9, column a: 1 and 2"


@pytest.mark.parametrize(("value", "status"), [("2.502", 0), ("2.503", 1), ("-2.5", 1)])
def test_tolerance_is_relative_to_the_larger_number(tmp_path, value, status):
    assert compared(tmp_path, LOG.replace("2.5", value), "--tolerance", "0.001") == status


@pytest.mark.parametrize(
    ("column", "cells"), [("dataset", "2014 2017"), ("samples_hash", "1234567890123456 12345678901234e2")]
)
def test_words_that_read_like_numbers_are_no_numbers(tmp_path, capsys, column, cells):
    one, other = cells.split()
    runs = [str(run(tmp_path / name, f"step,{column}\n1,{cell}\n")) for name, cell in (("one", one), ("two", other))]
    parser = argparse.ArgumentParser()
    compare.add_arguments(parser)
    assert compare.main(parser.parse_args([*runs, "--tolerance", "0.01"])) == 1
    assert f"step 1, column {column}: {one} and {other}" in capsys.readouterr().out


def test_equal_nans_are_no_difference(tmp_path):
    log = LOG.replace("2.5", "nan")
    one, two = (compare.read_log(run(tmp_path / name, log)) for name in ("one", "two"))
    assert compare.difference(one, two, 0.0) is None


@pytest.mark.parametrize(
    ("log", "message"),
    [
        ("", "no column 'step'"),
        ("a,b\n1,2\n", "no column 'step'"),
        ("step,a\n1\n", "line 2: not as many cells"),
        ("step,a\n1,2\n2,2,3\n", "line 3: not as many cells"),
        ("step,a\nx,2\n", "line 2: step: expected a number, found 'x'"),
        ("step,a\n1,2\n1,2\n", "line 3: step 1 stands there twice"),
    ],
)
def test_what_is_no_log_is_an_error_that_names_the_line(tmp_path, log, message):
    with pytest.raises(UserError, match=message):
        compare.read_log(run(tmp_path, log))


def test_a_missing_log_is_an_error_that_names_the_file(tmp_path):
    with pytest.raises(UserError, match=r"metrics.csv: no such file"):
        compare.read_log(tmp_path)


@pytest.mark.parametrize("tolerance", ["-1", "nan", "inf"])
def test_a_tolerance_is_a_number_of_at_least_0(tmp_path, tolerance):
    with pytest.raises(UserError, match="--tolerance"):
        compared(tmp_path, LOG, f"--tolerance={tolerance}")
