"""How much an average step of each kind holds, worked out by hand."""

from dataclasses import replace

import pytest

from relvlm.config.schema import Config, DataConfig, JointWeights, KindCounts, KindRatios
from relvlm.plan.workload import Workload, sections, workload, workloads

DATA = DataConfig(batch=KindCounts(captions=8, entities=12, mrc=4, vsg=6, joint=10))


@pytest.mark.parametrize(
    "expected",
    [
        Workload("captions", 8, 1, 14, 36, masked=3),  # a quarter of 13 words
        Workload("vsg", 6, 1, 49, 112, masked=12),  # [CLS] and 8 triplets of 6
        Workload("mrc", 4, 4, 4, 36, masked=0, seen=0.3, relations=2),
        Workload("entities", 3, 4, 4, 36, masked=1, seen=0.3, boxes=4),  # 12 regions, 4 an image
    ],
    ids=lambda work: work.kind,
)
def test_an_average_step_of_each_kind(expected):
    assert workload(DATA, expected.kind) == expected


def test_a_vsg_text_is_no_longer_than_it_may_be():
    assert workload(replace(DATA, vsg_triplets=18), "vsg").tokens == 109
    assert workload(replace(DATA, vsg_triplets=19), "vsg").tokens == 112


def test_a_group_has_one_masked_token_at_least():
    assert workload(replace(DATA, mlm_probability=0.01), "captions").masked == 1
    assert workload(replace(DATA, mlm_probability=1.0), "captions").masked == 13  # all but [CLS]


def test_a_joint_step_encodes_its_images_once_for_all_sections():
    works = sections(DATA, "joint")
    assert [work.kind for work in works] == ["captions", "entities", "vsg", "mrc"]
    assert [work.images for work in works] == [10] * 4
    assert [work.encodes for work in works] == [True, False, False, False]
    assert all(work.boxed for work in works)


def test_a_joint_step_without_boxed_kinds_sees_no_box():
    works = sections(replace(DATA, joint_weights=JointWeights(1.0, 0.0, 0.0, 0.5)), "joint")
    assert [work.kind for work in works] == ["captions", "vsg"] and not any(work.boxed for work in works)


def test_a_step_of_one_kind_is_one_section():
    assert sections(DATA, "mrc") == [workload(DATA, "mrc")]


def test_kinds_that_are_not_drawn_cost_nothing():
    config = Config(data=replace(DATA, ratio=KindRatios(captions=1, mrc=0.5)))
    assert workloads(config) == {kind: [workload(DATA, kind)] for kind in ("captions", "mrc")}


def test_what_a_kind_has_not_is_nothing():
    bare = Workload("captions", 2, 1, 5, 8)
    assert bare == Workload("captions", 2, 1, 5, 8, 0, 1.0, 0, 0, True, False)
    captions, mrc = workload(DATA, "captions"), workload(DATA, "mrc")
    assert (captions.seen, captions.relations, captions.boxes) == (1.0, 0, 0)
    assert (mrc.masked, mrc.boxes, mrc.encodes, mrc.beside_boxes) == (0, 0, True, False)
