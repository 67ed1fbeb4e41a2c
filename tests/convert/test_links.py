"""Tensors of ours and of theirs: each kind of link both ways, and what does not fit."""

import pytest
import torch

from relvlm.convert.links import SHOWN, Link, cat, check_names, prefixed, same, to_ours, to_theirs
from relvlm.errors import UserError

A, B = torch.arange(6.0).view(2, 3), torch.arange(6.0, 12).view(2, 3)


@pytest.mark.parametrize(
    ("how", "theirs", "ours"),
    [
        ("same", [A], A),
        ("cat", [A, B], torch.arange(12.0).view(4, 3)),
        ("tied", [A, A], A),
        ("transposed", [A], torch.tensor([[0.0, 3], [1, 4], [2, 5]])),
        ("scalar", [torch.tensor(7.0)], torch.tensor([7.0])),
        ("row", [A], A.view(1, 2, 3)),
        ("token", [A[0]], A[0].view(1, 1, 3)),
    ],
)
def test_a_link_goes_both_ways(how, theirs, ours):
    link = Link("ours", tuple(f"theirs.{i}" for i in range(len(theirs))), how)
    assert torch.equal(link.to_ours(theirs), ours)
    back = link.to_theirs(ours)
    assert len(back) == len(theirs)
    assert all(
        torch.equal(found, tensor) and found.shape == tensor.shape for found, tensor in zip(back, theirs, strict=True)
    )
    assert link.to_ours(theirs).is_contiguous() and all(tensor.is_contiguous() for tensor in back)


def test_parts_of_a_whole_are_tensors_of_their_own():
    first, second = Link("ours", ("a", "b"), "cat").to_theirs(torch.zeros(4, 3))
    assert first.untyped_storage().data_ptr() != second.untyped_storage().data_ptr()


def test_copies_that_differ_are_refused():
    with pytest.raises(UserError, match=r"^a, b, c: are tied"):
        Link("ours", ("a", "b", "c"), "tied").to_ours([A, A, B])


def test_modules_have_a_weight_and_a_bias():
    assert same([("a", "x"), ("b", "y")]) == [
        Link("a.weight", ("x.weight",)),
        Link("a.bias", ("x.bias",)),
        Link("b.weight", ("y.weight",)),
        Link("b.bias", ("y.bias",)),
    ]
    assert cat("qkv", iter("qkv")) == [
        Link("qkv.weight", ("q.weight", "k.weight", "v.weight"), "cat"),
        Link("qkv.bias", ("q.bias", "k.bias", "v.bias"), "cat"),
    ]


def test_prefixes_are_for_names_that_there_are():
    links = [Link("a", ("x", "y"), "tied"), Link("", ("z",), "derived", A)]
    assert prefixed(links, "ours.", "theirs.") == [
        Link("ours.a", ("theirs.x", "theirs.y"), "tied"),
        Link("", ("theirs.z",), "derived", A),
    ]


LINKS = [
    Link("a", ("x",)),
    Link("b", ("y", "z"), "cat"),
    Link("", ("mask",), "derived", torch.tensor([0, 1])),
]
THEIRS = {"x": A, "y": A, "z": B, "mask": torch.tensor([0, 1])}


def test_a_state_goes_both_ways():
    ours = to_ours(LINKS, THEIRS, "file")
    assert list(ours) == ["a", "b"]
    back = to_theirs(LINKS, ours, "file")
    assert list(back) == ["x", "y", "z", "mask"] and all(torch.equal(back[k], t) for k, t in THEIRS.items())


@pytest.mark.parametrize("mask", [torch.tensor([1, 1]), torch.tensor([0]), torch.tensor([[0, 1]])])
def test_what_follows_from_sizes_must_agree(mask):
    with pytest.raises(UserError, match=r"^file: mask: is not what it is in the official model"):
        to_ours(LINKS, THEIRS | {"mask": mask}, "file")


def test_what_follows_from_sizes_may_be_of_another_dtype():
    assert to_ours(LINKS, THEIRS | {"mask": torch.tensor([0.0, 1.0])}, "file")


def test_keys_that_do_not_fit_are_all_named():
    with pytest.raises(UserError, match=r"^file: keys do not fit: 2 missing: x, z; 1 unknown: q$"):
        to_ours(LINKS, {"y": A, "mask": THEIRS["mask"], "q": A}, "file")
    with pytest.raises(UserError, match=r"^file: keys do not fit: 1 missing: a$"):
        to_theirs(LINKS, {"b": A}, "file")
    with pytest.raises(UserError, match=r"^file: keys do not fit: 1 unknown: c$"):
        to_theirs(LINKS, {"a": A, "b": A, "c": A}, "file")


def test_a_long_list_of_keys_is_cut():
    names = [f"k{i:02}" for i in range(SHOWN + 1)]
    with pytest.raises(UserError) as caught:
        check_names(set(), set(names), "file")
    assert str(caught.value) == f"file: keys do not fit: 41 unknown: {', '.join(names[:40])}, ..."
    with pytest.raises(UserError) as caught:
        check_names(set(), set(names[1:]), "file")
    assert str(caught.value).endswith(names[40])
