"""The one packed pass equals the plain way: one padded pass of the fusion encoder per objective.

Losses and every gradient, in fp32, are as close to those of the plain way in fp64 as its own fp32 is; the official
codes run it the plain way.
"""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from support.closeness import assert_as_close_as
from toys import (
    DROPPING,
    LATE,
    LATE_CLIP,
    RELATIONS,
    SWIN,
    TAUGHT,
    VIT,
    WORDS,
    five_groups,
    padded,
    toy_pretraining,
)

from relvlm.data.batches.batch import Batch
from relvlm.encoders.position import resize_positions
from relvlm.encoders.vit import ViT
from relvlm.losses.bbox import bbox_loss
from relvlm.losses.itm import IGNORED
from relvlm.model import RelVLM
from relvlm.pretraining import step as module
from relvlm.pretraining.chunks import chunks_of
from relvlm.pretraining.negatives import Negatives, false_negatives, group_keys
from relvlm.pretraining.step import Pretraining

GRID = 4


def plain_losses(model: RelVLM, batch: Batch, negatives, grid=(GRID, GRID)) -> dict[str, torch.Tensor]:
    """Replicated images, padded texts, dense masks, one fusion pass per objective."""
    image = model.encode_image(batch.pixels)[batch.regions.image.long()]
    ids, mask = padded(batch, batch.text_ids)
    text = model.encode_text(ids, mask)
    seen = torch.zeros(5, *grid, dtype=torch.bool)
    for g, (x0, y0, x1, y1) in enumerate(batch.regions.box.tolist()):
        seen[g, y0:y1, x0:x1] = True
    seen = seen.flatten(1)
    visible = torch.cat([torch.ones(5, 1, dtype=torch.bool), seen], dim=1)
    if model.config.fusion.region_mask == "late_vision":  # every token of a copy of the image for each region
        image = model.encode_regions(batch.pixels, batch.regions.image, visible)
        first = image[:, 0]
    else:  # a region's first token is its mean: a materialised [CLS], as X-VLM with Swin does
        mean = (image[:, 1:] * seen[..., None]).sum(1) / seen.sum(1)[:, None]
        first = torch.where(batch.whole[:, None], image[:, 0], mean)
        image = torch.cat([first[:, None], image[:, 1:]], dim=1)

    def cls(texts, views):
        return model.fuse(text[texts], mask[texts], image[views], visible[views])[:, 0]

    every = torch.arange(5)
    if batch.kind == "mrc":
        h = cls(every, every)
        hidden = torch.relu(model.mrc_head.first(torch.cat([h[batch.subject], h[batch.object]], -1)))
        return {"mrc": F.cross_entropy(model.mrc_head.second(hidden), batch.relation)}

    image_feature = F.normalize(model.image_projection(first), dim=-1)
    text_feature = model.text_features(text)
    logits = image_feature @ text_feature.T / model.temperature
    keys = group_keys(batch)
    wrong = false_negatives(keys, keys) & ~torch.eye(5, dtype=torch.bool)  # (text, view)
    i2t = F.cross_entropy(logits.masked_fill(wrong.T, -1e30), every)
    t2i = F.cross_entropy(logits.T.masked_fill(wrong, -1e30), every)
    view_of_text, text_of_view, target = negatives
    itm = [cls(every, every), cls(every, view_of_text), cls(text_of_view, every)]
    masked_ids, _ = padded(batch, batch.mlm_ids)
    words = model.mlm_logits(model.fuse(model.encode_text(masked_ids, mask), mask, image, visible))
    losses = {
        "itc": (i2t + t2i) / 2,
        "itm": F.cross_entropy(model.itm_head(torch.cat(itm)), target, ignore_index=IGNORED),
        "mlm": F.cross_entropy(words[mask][batch.mlm_row], batch.mlm_label),
    }
    if batch.kind == "entities":
        full = model.encode_image(batch.pixels)[batch.regions.image.long()]
        boxes = model.predict_boxes(model.fuse(text, mask, full))
        losses["bbox"] = bbox_loss(boxes[~batch.whole], batch.target_box[~batch.whole])
    return losses


@pytest.mark.parametrize("kind", ["captions", "entities", "mrc", "vsg"])
@pytest.mark.parametrize("config", [VIT, SWIN, LATE, LATE_CLIP], ids=["vit", "swin", "late", "late clip"])
def test_packed_pass_equals_separate_padded_passes(kind, config, monkeypatch):
    step, batch = toy_pretraining(config), five_groups(kind)
    drawn = {}

    def remember(*args, original=module.draw_negatives):
        drawn["negatives"] = original(*args)
        return drawn["negatives"]

    monkeypatch.setattr(module, "draw_negatives", remember)
    total, values = step(batch)
    packed = gradients(step.model, total)
    plain, truth = (
        with_gradients(each, plain_losses(each, batch, drawn.get("negatives")))
        for each in single_and_double(step.model)
    )
    # The temperature's gradient is one number, in which large ones cancel: the plain one may be right by luck.
    assert_as_close_as(({name: values[name] for name in plain[0]}, packed), plain, truth, factor=4)


def single_and_double(model: RelVLM) -> tuple[RelVLM, RelVLM]:
    return model, copy.deepcopy(model).double()


def with_gradients(model: RelVLM, losses: dict[str, torch.Tensor]):
    return losses, gradients(model, sum(losses.values()))


def gradients(model: RelVLM, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in model.named_parameters()}


@pytest.mark.parametrize("kind", ["captions", "entities", "mrc", "vsg"])
@pytest.mark.parametrize("config", [VIT, LATE], ids=["vit", "late"])
def test_every_parameter_gets_a_gradient_from_every_kind(kind, config):
    step = toy_pretraining(config)
    step(five_groups(kind)).total.backward()
    assert [n for n, p in step.named_parameters() if p.grad is None] == []


def test_what_a_batch_does_not_train_has_a_gradient_of_zero():
    step = toy_pretraining(VIT)
    step(five_groups("mrc")).total.backward()
    model = step.model
    idle = [model.temperature, *model.itm_head.parameters(), *model.box_head.parameters()]
    assert all(not p.grad.any() for p in [*idle, *model.image_projection.parameters()])
    assert all(p.grad.any() for p in model.mrc_head.parameters())


def test_a_model_of_zeros_trains_without_nan():
    step = toy_pretraining(replace(VIT, localisation=False, relations=False))
    with torch.no_grad():
        for parameter in step.parameters():
            parameter.zero_()
    total, _ = step(five_groups("captions"))
    total.backward()
    assert total.isfinite() and all(p.grad.isfinite().all() for p in step.parameters())


def test_an_image_with_no_region_left_trains_without_nan():
    step, batch = toy_pretraining(), five_groups("entities")
    seen = replace(batch.regions, prefix=torch.ones(5).bool(), mean=torch.zeros(5).bool())
    total, values = step(replace(batch, regions=seen, region=torch.zeros(0).long()))
    total.backward()
    assert total.isfinite() and values["bbox"] == 0


def test_the_total_is_the_sum_of_the_objectives_by_the_weight_of_their_section():
    step, batch = toy_pretraining(), five_groups("entities")
    (section,) = batch.sections
    twice = replace(batch, kind="joint", joint=(section._replace(weight=2.0),))
    torch.manual_seed(2)
    total, values = step(batch)
    assert set(values) == {"itc", "itm", "mlm", "bbox", "itm_accuracy"}
    losses = [value for name, value in values.items() if name != "itm_accuracy"]
    torch.testing.assert_close(total.detach(), torch.stack(losses).sum())
    torch.manual_seed(2)
    weighed, named = step(twice)
    torch.testing.assert_close(weighed.detach(), 2 * total.detach())
    assert {name: float(value) for name, value in named.items()} == pytest.approx(
        {f"entities/{name}": float(value) for name, value in values.items()}
    )


@pytest.mark.parametrize(("given", "used"), [(0.0, 0.001), (0.2, 0.2), (3.0, 0.5)])
def test_the_temperature_is_clamped_before_it_is_used(given, used):
    step, batch = toy_pretraining(), five_groups("captions")
    other = toy_pretraining()
    with torch.no_grad():
        step.model.temperature.fill_(given)
        other.model.temperature.fill_(used)
    assert torch.equal(step(batch).values["itc"], other(batch).values["itc"])
    assert step.model.temperature.item() == pytest.approx(used)


def test_the_model_keeps_its_names_and_the_teacher_none():
    step = toy_pretraining(TAUGHT)
    assert step.model.state_dict().keys() == toy_pretraining(VIT).model.state_dict().keys()
    assert not any("teacher" in name for name in [*step.state_dict(), *dict(step.named_parameters())])
    assert step.temperature.parameter is step.model.temperature


def test_the_teacher_follows_the_mode_of_the_step():
    step = toy_pretraining(TAUGHT)
    assert not step.eval().teacher.training and step.train().teacher.training


@pytest.mark.parametrize(("kind", "aligned"), [("captions", True), ("mrc", False)])
def test_a_chunk_knows_its_part_of_itc_where_texts_say_what_is_seen(kind, aligned):
    step, batch = toy_pretraining(TAUGHT), five_groups(kind)
    targets = step.chunk_targets([batch] * 2)
    assert [target.itc is not None for target in targets] == [aligned] * 2
    assert [target.teacher is not None for target in targets] == [aligned] * 2
    assert targets[0].seed != targets[1].seed and step.teacher.seen == aligned
    assert {float(share) for target in targets for share in target.shares.values()} == {0.5}
    (only,) = step.chunk_targets([batch])
    assert (only.itc is not None) == aligned and {float(share) for share in only.shares.values()} == {1.0}


def test_a_chunk_gives_its_share_of_every_number():
    step, batch = toy_pretraining(), five_groups("captions")
    given = Negatives.given(torch.tensor([1, 0, 3, 2, 0]), torch.tensor([4, 2, 1, 0, 3]))
    whole, chunks = step(batch, negatives=given).values, chunks_of([batch, five_groups("captions")])
    part = step(batch, chunks[0], given).values
    assert 0 < whole["itm_accuracy"] < 1
    for name in ("itm", "mlm", "itm_accuracy"):
        torch.testing.assert_close(part[name], whole[name] / 2)


def test_given_negatives_are_used():
    step, batch = toy_pretraining().eval(), five_groups("captions")
    given = Negatives.given(torch.tensor([1, 0, 3, 2, 0]), torch.tensor([4, 2, 1, 0, 3]))
    first, second = (step(batch, negatives=given).values["itm"] for _ in range(2))
    other = Negatives.given(given.text_of_view, given.view_of_text)
    assert first == second != step(batch, negatives=other).values["itm"]


@pytest.mark.parametrize("kind", ["captions", "vsg"])
def test_dropped_patches_are_seen_by_no_text(kind, monkeypatch):
    """The losses of the plain way on the tokens that are left."""
    step, batch = toy_pretraining(DROPPING), five_groups(kind)
    model = step.model
    kept = torch.stack([torch.randperm(16)[:8] for _ in range(5)])
    monkeypatch.setattr(model.vision, "draw_patches", lambda pixels: kept)
    given = Negatives.given(torch.tensor([1, 0, 3, 2, 0]), torch.tensor([4, 2, 1, 0, 3]))
    total, values = step(batch, negatives=given)
    packed = gradients(model, total)
    box = torch.tensor([[0, 0, 8, 1]], dtype=torch.int32).expand(5, 4)
    batch, found = replace(batch, regions=replace(batch.regions, box=box)), []
    for each in single_and_double(model):
        monkeypatch.setattr(each, "encode_image", lambda pixels, vision=each.vision: vision(pixels, kept))
        found.append(with_gradients(each, plain_losses(each, batch, given, (1, 8))))
    assert_as_close_as(({name: values[name] for name in found[0][0]}, packed), *found)


@pytest.mark.parametrize("kind", ["captions", "entities", "mrc", "vsg"])
def test_patches_are_dropped_in_training_alone_and_where_no_box_needs_them(kind, monkeypatch):
    config = replace(DROPPING, momentum=TAUGHT.momentum)
    step, batch, lengths = toy_pretraining(config), five_groups(kind), []

    def remember(vit, x, *rest, original=ViT.late, **kwargs):
        lengths.append(x.shape[1])
        return original(vit, x, *rest, **kwargs)

    monkeypatch.setattr(ViT, "late", remember)
    step(batch)
    teacher = [] if kind == "mrc" else [lengths[0]]
    assert lengths == [9 if kind in ("captions", "vsg") else 17, *teacher]
    lengths.clear()
    step.eval()(batch)
    assert set(lengths) == {17}


@pytest.mark.parametrize("kind", ["captions", "entities", "mrc", "vsg"])
@pytest.mark.parametrize("config", [VIT, LATE], ids=["vit", "late"])
def test_a_step_on_smaller_images_is_that_of_a_model_of_their_size(kind, config):
    step, batch = toy_pretraining(config), five_groups(kind)
    boxes = torch.cat([batch.regions.box[:, :2].clamp(max=1), batch.regions.box[:, 2:].clamp(max=2)], dim=1)
    seen = replace(batch.regions, box=boxes, grid=(2, 2))
    batch = replace(batch, pixels=batch.pixels[..., :16, :16].contiguous(), regions=seen)
    small = RelVLM(replace(config, image_size=16), WORDS, RELATIONS)
    state = step.model.state_dict()
    state["vision.backbone.position"] = resize_positions(state["vision.backbone.position"], 2)
    small.load_state_dict(state)
    found = []
    for each in (step, Pretraining(small)):
        torch.manual_seed(2)  # the same negatives
        found.append(each(batch).values)
    torch.testing.assert_close(*found)
