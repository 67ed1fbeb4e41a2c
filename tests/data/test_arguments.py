"""Kinds of command-line values."""

import argparse

import pytest

from relvlm.data.arguments import positive, share


@pytest.mark.parametrize(("text", "value"), [("1", 1), ("20", 20)])
def test_a_count_is_a_whole_number_above_0(text, value):
    assert positive(text) == value


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "x", ""])
def test_other_counts_are_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match=f"'{text}' is no whole number above 0"):
        positive(text)


@pytest.mark.parametrize(("text", "value"), [("0", 0), ("0.25", 0.25), ("1", 1)])
def test_a_share_is_from_0_to_1(text, value):
    assert share(text) == value


@pytest.mark.parametrize("text", ["-0.001", "1.001", "nan", "x", ""])
def test_other_shares_are_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match=f"'{text}' is no share from 0 to 1"):
        share(text)
