"""Structures that Python fills and C reads: fields lie where the compiled library says."""

import ctypes

import pytest

from relvlm_kernels import cpu, native
from relvlm_kernels.cpu.library import AddNorm, BiasGelu, BoxMean, Call, Groups

STRUCTURES = Call, Groups, BoxMean, AddNorm, BiasGelu
library = cpu.library.LIBRARY


@pytest.fixture
def layout():
    if not library.path.exists():
        pytest.skip(f"cpu kernels: {library.record}")
    return ctypes.CDLL(str(library.path)).relvlm_layout


def swapped(structure, first, second):
    """A structure of the same name with two fields in each other's place."""
    order = {first: second, second: first}
    types = dict(structure._fields_)
    fields = [(order.get(name, name), types[order.get(name, name)]) for name, _ in structure._fields_]
    return type(structure.__name__, (native.Structure,), {"_fields_": fields})


def test_every_field_lies_where_the_library_has_it(layout):
    assert native.misplaced(STRUCTURES, native._text(layout)) == []
    assert library.missing == ""


@pytest.mark.parametrize(
    ("structure", "fields"),
    [
        (Call, ("q", "k")),
        (Call, ("dk_row", "dk_head")),
        (Groups, ("prefix", "mean")),
        (BoxMean, ("type", "backward")),
    ],
)
def test_two_fields_in_each_others_place_are_noticed(layout, structure, fields):
    others = [of for of in STRUCTURES if of is not structure]
    wrong = native.misplaced((swapped(structure, *fields), *others), native._text(layout))
    assert sorted(line.split(":")[0] for line in wrong) == sorted(f"{structure.__name__}.{f}" for f in fields)


def test_a_field_less_is_noticed(layout):
    less = type("Groups", (native.Structure,), {"_fields_": Groups._fields_[:-1]})
    assert "Groups.partial" in " ".join(native.misplaced((Call, less, *STRUCTURES[2:]), native._text(layout)))


def test_a_library_of_other_sources_is_not_used(layout, monkeypatch):
    other = native.Library("cpu", "relvlm_", (swapped(Call, "q", "k"), *STRUCTURES[1:]))
    assert "of other sources than this Python code: Call." in other.missing
    older = native.Library("cpu", "no_such_", STRUCTURES)
    assert "no layout" in older.missing


def test_a_name_that_is_no_field_is_an_error():
    with pytest.raises(AttributeError, match="source_image"):
        Call(source_image=1)
    with pytest.raises(AttributeError, match="source_image"):
        Call().source_image = 1
