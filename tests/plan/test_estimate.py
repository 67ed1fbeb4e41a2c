"""From counts to seconds: what is shared, chunked, weighed and summed."""

from dataclasses import replace

import pytest

from relvlm.config.schema import (
    Config,
    DataConfig,
    FusionConfig,
    KindCounts,
    KindRatios,
    LowResolutionConfig,
    ModelConfig,
    MomentumConfig,
    TextConfig,
)
from relvlm.config.vision import ViTConfig
from relvlm.errors import UserError
from relvlm.model import RelVLM
from relvlm.plan import flops, memory, traffic
from relvlm.plan.cluster import Cluster
from relvlm.plan.devices import Device
from relvlm.plan.estimate import Plan, Step, count_parameters, plan
from relvlm.plan.flops import BERT_WORDS, GQA_RELATIONS, Sizes
from relvlm.plan.overlap import waiting
from relvlm.plan.scaling import Row
from relvlm.plan.workload import sections, workload
from relvlm.pretraining.step import Pretraining

DEVICE = Device(flops=1e12, memory=1e9, within_node=1e9, between_nodes=1e8, fp32=1e12)
ONE, TWO = Cluster(DEVICE, 1, 2, mfu=0.5, host=0.0), Cluster(DEVICE, 2, 2, mfu=0.25, host=0.0)
MODEL = ModelConfig(
    image_size=64,
    embed_dim=16,
    vision=ViTConfig(width=32, layers=2, heads=2, patch_size=16),
    text=TextConfig(layers=2, heads=2, width=32, max_positions=128),
    fusion=FusionConfig(layers=2, heads=2),
    mrc_hidden=64,
)
DATA = DataConfig(batch=KindCounts(captions=8, entities=32, mrc=8, vsg=8, joint=8), ratio=KindRatios(captions=1, mrc=3))
CONFIG = Config(steps=100, model=MODEL, data=DATA)
SIZES = Sizes(MODEL)


def only(kind: str, **changes) -> Config:
    return replace(CONFIG, data=replace(DATA, ratio=KindRatios(**{kind: 1.0})), **changes)


def step(config: Config, cluster: Cluster = ONE, way: str = "ours") -> Step:
    (found,) = plan(config, cluster, way).steps.values()
    return found


def total(parts: dict[str, float]) -> float:
    return sum(parts.values())


def test_a_teacher_and_its_queues_take_memory_whole_on_every_gpu():
    taught = replace(MODEL, momentum=MomentumConfig(enabled=True, queue=32))
    made = Pretraining(RelVLM(taught, BERT_WORDS, GQA_RELATIONS)).teacher
    assert made is not None
    kept = sum(x.nbytes for x in (*made.parameters(), *made.buffers()))
    found = [plan(only("captions", model=model, dtype="bf16"), TWO, "ours") for model in (MODEL, taught)]
    assert [each.teacher for each in found] == [0, kept]
    without, taught_row = (Row(CONFIG, TWO, each) for each in found)
    assert taught_row.memory - without.memory == pytest.approx(kept)


def test_seconds_are_those_of_computing_and_then_of_waiting():
    found = step(only("captions"), TWO)
    share = replace(workload(DATA, "captions"), images=2)
    weights, features = traffic.collectives(count_parameters(CONFIG), 1, 4, 4), traffic.contrast(SIZES, share, 4)
    assert found.compute == pytest.approx(total(found.flops) / (4 * 1e12 * 0.25))
    assert found.communicate == pytest.approx(waiting(TWO, weights, features, 4, 1, found.compute))
    assert found.seconds == found.compute + found.communicate > found.compute > 0


def test_fp32_is_computed_at_its_own_peak():
    slow = replace(ONE, device=replace(DEVICE, fp32=DEVICE.flops / 4))
    assert step(only("captions"), slow).compute == pytest.approx(4 * step(only("captions")).compute)
    assert step(only("captions", dtype="bf16"), slow) == step(only("captions", dtype="bf16"))


def test_a_step_is_no_faster_than_its_kernels_are_issued():
    plain = step(only("captions"))
    slow, slower = (step(only("captions", accumulate=n), replace(ONE, host=2 * plain.compute)) for n in (1, 2))
    assert plain.busy == plain.compute and slow.busy == 2 * plain.compute and slower.busy == 4 * plain.compute
    assert step(only("captions"), replace(ONE, host=0.5 * plain.compute)).busy == plain.compute


@pytest.mark.parametrize("way", ["ours", "official"])
def test_training_costs_three_forward_passes(way):
    count = {"ours": flops.packed, "official": flops.official}[way]
    work = workload(DATA, "entities")
    assert total(step(only("entities"), ONE, way).flops) == pytest.approx(3 * total(count(SIZES, work)))


@pytest.mark.parametrize("way", ["ours", "official"])
def test_the_teacher_costs_one_forward_pass(way):
    taught = replace(MODEL, momentum=MomentumConfig(enabled=True))
    more = total(step(only("captions", model=taught), ONE, way).flops) - total(step(only("captions"), ONE, way).flops)
    forward = flops.teacher(Sizes(taught), workload(DATA, "captions"), padded=way == "official")
    assert more == pytest.approx(total(forward)) and more > 0


def test_a_gpu_keeps_the_activations_of_its_share():
    share = replace(workload(DATA, "captions"), images=4)
    assert step(only("captions")).activations == memory.packed_activations(SIZES, share, 4)
    assert step(only("captions", dtype="bf16")).activations == memory.packed_activations(SIZES, share, 2)
    assert step(only("captions"), way="official").activations == memory.official_activations(SIZES, share, 4)


def test_a_joint_step_is_the_sum_of_its_sections():
    works = sections(DATA, "joint")
    shares = [replace(work, images=4) for work in works]
    found = step(only("joint"))
    assert total(found.flops) == pytest.approx(3 * sum(total(flops.packed(SIZES, work)) for work in works))
    kept = sum(total(memory.packed_activations(SIZES, share, 4)) for share in shares)
    assert total(found.activations) == pytest.approx(kept)


def test_weights_and_features_go_over_the_wire():
    share = replace(workload(DATA, "captions"), images=4)
    expected = traffic.collectives(count_parameters(CONFIG), 1, 2, 4) | {}
    features = traffic.contrast(SIZES, share, 2)
    assert total(step(only("captions")).traffic) == pytest.approx(total(expected) + total(features))
    assert total(step(only("mrc")).traffic) == pytest.approx(total(expected))


def test_chunks_keep_the_largest_of_them_and_encode_once_more():
    share, whole = replace(workload(DATA, "captions"), images=4), step(only("captions"))
    found = step(only("captions", accumulate=3))
    largest = memory.packed_activations(SIZES, replace(share, images=2), 4)  # of 2, 1 and 1
    assert found.activations == largest | memory.features(SIZES, share, 4)
    again = flops.encoders(SIZES, workload(DATA, "captions"))
    assert total(found.flops) == pytest.approx(total(whole.flops) + total(again))


def test_chunks_without_itc_need_no_features_beforehand():
    whole, found = step(only("mrc")), step(only("mrc", accumulate=2))
    assert found.flops == whole.flops and total(found.activations) == pytest.approx(total(whole.activations) / 2)


def test_the_official_way_has_no_chunks():
    assert step(only("captions", accumulate=2), way="official") == step(only("captions"), way="official")


def test_means_are_weighed_by_how_often_a_kind_is_drawn():
    found = plan(CONFIG, ONE, "ours")
    captions, mrc = found.steps["captions"], found.steps["mrc"]
    assert found.mean_seconds == pytest.approx((captions.seconds + 3 * mrc.seconds) / 4)
    assert found.mean_flops == pytest.approx((total(captions.flops) + 3 * total(mrc.flops)) / 4)
    assert found.total_seconds == pytest.approx(100 * found.mean_seconds)


def test_a_phase_of_smaller_images_counts_by_its_share_of_the_steps():
    small = replace(CONFIG, model=replace(MODEL, image_size=32))
    mixed = plan(replace(CONFIG, low_resolution=LowResolutionConfig(25, 32)), ONE, "ours")
    full, less = plan(CONFIG, ONE, "ours"), plan(small, ONE, "ours")
    assert mixed.mean_flops == pytest.approx(0.75 * full.mean_flops + 0.25 * less.mean_flops)
    assert mixed.total_seconds == pytest.approx(75 * full.mean_seconds + 25 * less.mean_seconds, rel=1e-3)
    assert mixed.steps == full.steps


def test_the_activations_of_a_recipe_are_those_of_the_kind_that_keeps_most():
    few, many = ({"vision": 1.0, "text": 5.0}, {"vision": 4.0, "text": 3.0})
    steps = {"captions": Step({}, {}, few, 1.0, 1.0), "mrc": Step({}, {}, many, 1.0, 1.0)}
    assert Plan(1, steps, 1.0, 1.0, 1.0).activations == many


def test_only_what_is_trained_counts_as_parameters():
    taught = replace(MODEL, momentum=MomentumConfig(enabled=True))
    assert count_parameters(replace(CONFIG, model=taught)) == count_parameters(CONFIG)
    head = 64 * (2 * 32 + 1) + 310 * (64 + 1)  # MRC's two layers, of GQA's 310 relations
    without = replace(CONFIG, model=replace(MODEL, relations=False))
    assert count_parameters(CONFIG) - count_parameters(without) == head


def test_what_cannot_be_shared_is_refused():
    assert step(only("captions"), Cluster(DEVICE, 1, 8))
    with pytest.raises(UserError, match=r"data\.batch\.captions: 8 images cannot be shared by 3 GPUs"):
        step(only("captions"), Cluster(DEVICE, 1, 3))


def test_chunks_without_an_image_are_refused():
    assert step(only("captions", accumulate=4))
    with pytest.raises(UserError, match=r"accumulate: 5 chunks are more than the 4 captions images of a GPU"):
        step(only("captions", accumulate=5))
