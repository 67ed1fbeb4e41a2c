"""The one packed pass equals the plain way: one padded pass of the fusion encoder per objective.

Losses and every gradient, in fp32, are as close to those of the plain way in fp64 as its own fp32 is; the official
codes run it the plain way.
"""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from closeness import assert_as_close_as

from relvlm import objectives, pairs
from relvlm.config import FusionConfig, ModelConfig, MomentumConfig, TextConfig, VisionConfig
from relvlm.data.batch import Batch
from relvlm.encoders.position import resize_positions
from relvlm.encoders.vit import ViT
from relvlm.losses.bbox import bbox_loss
from relvlm.losses.itm import IGNORED
from relvlm.model import RelVLM
from relvlm.pairs import false_negatives

WORDS, RELATIONS, GRID = 50, 7, 4
LENGTHS = [4, 3, 6, 3, 5]
VIT = VisionConfig(width=32, layers=2, heads=2, patch_size=8)
SWIN = VisionConfig(kind="swin", width=16, heads=2, patch_size=4, depths=[1, 1], window=4)
LATE = VisionConfig(
    width=32, layers=3, heads=2, patch_size=8, late_blocks=2
)  # regions masked in two of three blocks
LATE_CLIP = VisionConfig(kind="clip_vit", width=32, layers=2, heads=2, patch_size=8, late_blocks=2)


def make_model(vision=VIT, norm="post", momentum=None, **choices) -> RelVLM:
    torch.manual_seed(0)
    text = TextConfig(layers=2, heads=2, width=32, max_positions=16, dropout=0.0, norm=norm)
    mask = "late_vision" if vision in (LATE, LATE_CLIP) else "cross_attention"
    config = ModelConfig(
        image_size=32, embed_dim=16, vision=vision, text=text,
        fusion=FusionConfig(layers=2, heads=2, region_mask=mask),
        mrc_hidden=24, momentum=momentum or MomentumConfig(), **choices,
    )  # fmt: skip
    return RelVLM(config, WORDS, RELATIONS)


def make_batch(kind: str) -> Batch:
    torch.manual_seed(1)
    lengths = torch.tensor(LENGTHS)
    cu = F.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)
    ids = torch.randint(5, WORDS, (int(cu[-1]),))
    ids[cu[:-1].long()] = 2
    regional = kind in ("entities", "mrc")
    whole = torch.tensor([True, False, False, True, False]) if kind == "entities" else torch.ones(5).bool()
    whole = torch.zeros(5).bool() if kind == "mrc" else whole
    box = torch.tensor(
        [[0, 0, 4, 4], [0, 1, 2, 4], [3, 3, 4, 4], [0, 0, 4, 4], [1, 0, 3, 1]], dtype=torch.int32
    )
    box[whole] = torch.tensor([0, 0, 4, 4], dtype=torch.int32)
    image_index = torch.tensor([0, 0, 1, 1, 2] if regional else [0, 1, 2, 3, 4], dtype=torch.int32)
    row = torch.tensor([1, 5, 8, 14, 17])
    masked = ids.clone()
    masked[row] = 4
    return Batch(
        kind=kind, dataset="made", pixels=torch.randn(3 if regional else 5, 3, 32, 32),
        image_key=torch.tensor([10, 11, 12] if regional else [10, 11, 12, 13, 10]),
        text_ids=ids, text_cu=cu, text_key=torch.tensor([1, 2, 3, 4, 2]), image_index=image_index, box=box,
        whole=whole, region=(~whole).nonzero().squeeze(1), target_box=torch.rand(5, 4) * 0.5 + 0.2,
        mlm_ids=masked, mlm_row=row, mlm_label=ids[row],
        subject=torch.tensor([0, 2, 2]), object=torch.tensor([1, 3, 4]), relation=torch.tensor([0, 6, 3]),
    )  # fmt: skip


def padded(batch: Batch, ids: torch.Tensor):
    lengths = batch.text_cu[1:] - batch.text_cu[:-1]
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    out = torch.zeros(mask.shape, dtype=torch.long)
    out[mask] = ids
    return out, mask


def plain_losses(model: RelVLM, batch: Batch, negatives, grid=(GRID, GRID)) -> dict[str, torch.Tensor]:
    """Replicated images, padded texts, dense masks, one fusion pass per objective."""
    image = model.encode_image(batch.pixels)[batch.image_index.long()]
    ids, mask = padded(batch, batch.text_ids)
    text = model.encode_text(ids, mask)
    seen = torch.zeros(5, *grid, dtype=torch.bool)
    for g, (x0, y0, x1, y1) in enumerate(batch.box.tolist()):
        seen[g, y0:y1, x0:x1] = True
    seen = seen.flatten(1)
    visible = torch.cat([torch.ones(5, 1, dtype=torch.bool), seen], dim=1)
    if model.config.fusion.region_mask == "late_vision":  # every token of a copy of the image for each region
        image = model.encode_regions(batch.pixels, batch.image_index, visible)
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
    keys = torch.stack([batch.text_key, batch.image_key[batch.image_index.long()], batch.whole.long()], 1)
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
        full = model.encode_image(batch.pixels)[batch.image_index.long()]
        boxes = model.predict_boxes(model.fuse(text, mask, full))
        losses["bbox"] = bbox_loss(boxes[~batch.whole], batch.target_box[~batch.whole])
    return losses


@pytest.mark.parametrize("kind", ["captions", "entities", "mrc", "vsg"])
@pytest.mark.parametrize("vision", [VIT, SWIN, LATE, LATE_CLIP], ids=["vit", "swin", "late", "late clip"])
def test_packed_pass_equals_separate_padded_passes(kind, vision, monkeypatch):
    model, batch = make_model(vision), make_batch(kind)
    drawn = {}

    def remember(*args, original=objectives.draw_negatives):
        drawn["negatives"] = original(*args)
        return drawn["negatives"]

    monkeypatch.setattr(objectives, "draw_negatives", remember)
    total, values = model(batch)
    packed = gradients(model, total)
    plain, truth = (
        with_gradients(each, plain_losses(each, batch, drawn.get("negatives")))
        for each in single_and_double(model)
    )
    assert_as_close_as(({name: values[name] for name in plain[0]}, packed), plain, truth)


def single_and_double(model: RelVLM) -> tuple[RelVLM, RelVLM]:
    return model, copy.deepcopy(model).double()


def with_gradients(model: RelVLM, losses: dict[str, torch.Tensor]):
    return losses, gradients(model, sum(losses.values()))


def gradients(model: RelVLM, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in model.named_parameters()}


@pytest.mark.parametrize("kind", ["captions", "entities", "mrc", "vsg"])
@pytest.mark.parametrize("vision", [VIT, LATE], ids=["vit", "late"])
def test_every_parameter_gets_a_gradient_from_every_kind(kind, vision):
    model = make_model(vision)
    model(make_batch(kind))[0].backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


def test_an_image_with_no_region_left_trains_without_nan():
    model, batch = make_model(), make_batch("entities")
    batch = replace(batch, whole=torch.ones(5).bool(), region=torch.zeros(0).long())
    total, values = model(batch)
    total.backward()
    assert total.isfinite() and values["bbox"] == 0


def test_false_negatives_are_never_drawn():
    keys = torch.tensor([[1, 10, 1], [2, 10, 1], [3, 11, 0], [3, 12, 0], [4, 11, 1]])
    excluded = false_negatives(keys, keys)
    assert excluded.tolist() == [
        [True, True, False, False, False],
        [True, True, False, False, False],
        [False, False, True, True, True],
        [False, False, True, True, False],
        [False, False, False, False, True],
    ]
    for _ in range(50):
        drawn, exists = pairs.hard_negatives(torch.randn(5, 5), excluded)
        assert exists.all() and not excluded[torch.arange(5), drawn].any()


def test_match_pairs_equals_fuse():
    model, batch = make_model(norm="pre").eval(), make_batch("captions")
    image = model.encode_image(batch.pixels)
    ids, mask = padded(batch, batch.text_ids)
    text = model.encode_text(ids, mask)
    pairs_image, pairs_text = torch.tensor([3, 0, 0]), torch.tensor([4, 2, 2])
    logits = model.match_pairs(
        image, model.encode_text_packed(batch.text_ids, batch.text_cu), batch.text_cu, pairs_image, pairs_text
    )
    expected = model.match_logits(model.fuse(text[pairs_text], mask[pairs_text], image[pairs_image]))
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("alpha", [0.0, 0.4])
def test_momentum_itc_equals_albef_written_out(alpha):
    """Columns = momentum features of the batch, then the queue; targets = alpha softmax + (1 - alpha) one-hot."""
    model = make_model(momentum=MomentumConfig(enabled=True, decay=0.9, queue=8, alpha=alpha))
    batch, teacher = make_batch("captions"), model.teacher
    queues = teacher.image_queue.clone(), teacher.text_queue.clone()
    found = model(batch)[1]["itc"]

    def features(owner, image_projection, text_projection):
        image = image_projection(owner.vision(batch.pixels)[:, 0])
        text = text_projection(owner.text(batch.text_ids, batch.text_cu)[batch.text_cu[:-1].long()])
        return F.normalize(image, dim=-1), F.normalize(text, dim=-1)

    def one_way(rows, rows_m, columns_m, queue, wrong):
        columns = torch.cat([columns_m, queue])
        wrong = F.pad(wrong & ~torch.eye(5, dtype=torch.bool), (0, 8))
        logits = (rows @ columns.T / model.temperature).masked_fill(wrong, -1e30)
        soft = (rows_m @ columns.T / model.temperature).masked_fill(wrong, -1e30).softmax(-1)
        target = alpha * soft + (1 - alpha) * torch.eye(5, 13)
        return -(target * logits.log_softmax(-1)).sum(-1).mean()

    image, text = features(model, model.image_projection, model.text_projection)
    image_m, text_m = features(teacher, teacher.image_projection, teacher.text_projection)
    keys = pairs.group_keys(batch)
    wrong = false_negatives(keys, keys)
    i2t = one_way(image, image_m, text_m, queues[1], wrong.T)
    t2i = one_way(text, text_m, image_m, queues[0], wrong)
    torch.testing.assert_close(found, ((i2t + t2i) / 2).detach())


def test_the_queue_takes_the_batch_and_wraps_around():
    model = make_model(momentum=MomentumConfig(enabled=True, queue=8))
    before = model.teacher.text_queue.clone()
    model(make_batch("captions"))
    assert model.teacher.pointer.item() == 5
    assert torch.equal(model.teacher.text_queue[5:], before[5:])
    assert not torch.isclose(model.teacher.text_queue[:5], before[:5]).all(1).any()
    model(make_batch("captions"))
    assert model.teacher.pointer.item() == 2
    assert not torch.equal(model.teacher.text_queue[0], before[0])


def test_the_teacher_follows_the_student_and_stays_out_of_its_parameters():
    model = make_model(momentum=MomentumConfig(enabled=True, decay=0.75, queue=8))
    assert not any("teacher" in name for name in [*model.state_dict(), *dict(model.named_parameters())])
    teacher_bias, student_bias = model.teacher.text_projection.bias, model.text_projection.bias
    start = teacher_bias.clone()
    with torch.no_grad():
        student_bias.add_(1.0)
    model(make_batch("captions"))
    torch.testing.assert_close(teacher_bias, start + 0.25)
    assert teacher_bias.grad is None


def test_a_hidden_patch_is_no_key_in_the_last_vision_blocks():
    model = make_model(LATE)
    pixels, seen = torch.randn(1, 3, 32, 32), torch.zeros(1, 17, dtype=torch.bool)
    seen[0, [0, 6, 7]] = True
    whole = torch.ones_like(seen)
    region, image = (model.encode_regions(pixels, torch.tensor([0]), mask) for mask in (seen, whole))
    torch.testing.assert_close(image, model.encode_image(pixels))
    assert not torch.isclose(region[0, 0], image[0, 0]).any()


def test_official_negatives_leave_out_the_pair_itself_alone():
    batch = make_batch("captions")  # texts 1 and 4 are the same, images 0 and 4 too
    masked, official = (make_model(negatives=choice) for choice in ("masked", "official"))
    keys = pairs.group_keys(batch)
    assert pairs.wrong_pairs(masked, keys, keys).sum() > 5
    assert not pairs.wrong_pairs(official, keys, keys).any()
    features = pairs.Features(*[F.normalize(torch.randn(5, 16), dim=-1)] * 2)
    seen = set()
    for _ in range(60):
        drawn = pairs.draw_negatives(official, features, pairs.wrong_pairs(official, keys, keys), None)
        assert (drawn.view_of_text != torch.arange(5)).all() and (drawn.target[5:] == 0).all()
        seen.add(int(drawn.view_of_text[1]))
    assert 4 in seen


def test_given_negatives_are_used():
    model, batch = make_model().eval(), make_batch("captions")
    given = pairs.Negatives.given(torch.tensor([1, 0, 3, 2, 0]), torch.tensor([4, 2, 1, 0, 3]))
    first, second = (model(batch, given)[1]["itm"] for _ in range(2))
    other = pairs.Negatives.given(given.text_of_view, given.view_of_text)
    assert first == second != model(batch, other)[1]["itm"]


DROPPING = replace(VIT, patch_keep=0.5)


@pytest.mark.parametrize("kind", ["captions", "vsg"])
def test_dropped_patches_are_seen_by_no_text(kind, monkeypatch):
    """The losses of the plain way on the tokens that are left."""
    model, batch = make_model(DROPPING), make_batch(kind)
    kept = torch.stack([torch.randperm(16)[:8] for _ in range(5)])
    monkeypatch.setattr(model.vision, "draw_patches", lambda pixels: kept)
    given = pairs.Negatives.given(torch.tensor([1, 0, 3, 2, 0]), torch.tensor([4, 2, 1, 0, 3]))
    total, values = model(batch, given)
    packed = gradients(model, total)
    batch = replace(batch, box=torch.tensor([[0, 0, 8, 1]], dtype=torch.int32).expand(5, 4))
    outcomes = []
    for each in single_and_double(model):
        monkeypatch.setattr(each, "encode_image", lambda pixels, vision=each.vision: vision(pixels, kept))
        outcomes.append(with_gradients(each, plain_losses(each, batch, given, (1, 8))))
    assert_as_close_as(({name: values[name] for name in outcomes[0][0]}, packed), *outcomes)


@pytest.mark.parametrize("kind", ["captions", "entities", "mrc", "vsg"])
def test_patches_are_dropped_in_training_alone_and_where_no_box_needs_them(kind, monkeypatch):
    model, batch, lengths = (
        make_model(DROPPING, momentum=MomentumConfig(enabled=True, queue=8)),
        make_batch(kind),
        [],
    )

    def remember(vit, x, *rest, original=ViT.late, **kwargs):
        lengths.append(x.shape[1])
        return original(vit, x, *rest, **kwargs)

    monkeypatch.setattr(ViT, "late", remember)
    model(batch)
    teacher = [] if kind == "mrc" else [lengths[0]]
    assert lengths == [9 if kind in ("captions", "vsg") else 17, *teacher]
    lengths.clear()
    model.eval()(batch)
    assert set(lengths) == {17}


@pytest.mark.parametrize("kind", ["captions", "entities", "mrc", "vsg"])
@pytest.mark.parametrize("vision", [VIT, LATE], ids=["vit", "late"])
def test_a_step_on_smaller_images_is_that_of_a_model_of_their_size(kind, vision):
    model, batch = make_model(vision), make_batch(kind)
    boxes = torch.cat([batch.box[:, :2].clamp(max=1), batch.box[:, 2:].clamp(max=2)], dim=1)
    batch = replace(batch, pixels=batch.pixels[..., :16, :16].contiguous(), box=boxes)
    small = RelVLM(replace(model.config, image_size=16), WORDS, RELATIONS)
    state = model.state_dict()
    state["vision.backbone.position"] = resize_positions(state["vision.backbone.position"], 2)
    small.load_state_dict(state)
    outcomes = []
    for each in (model, small):
        torch.manual_seed(2)  # the same negatives
        outcomes.append(each(batch)[1])
    torch.testing.assert_close(*outcomes)


@pytest.mark.parametrize("choice", ["all_ranks", "own_rank"])
def test_the_itc_gradient_of_two_ranks(choice):
    """own_rank (X-VLM): the loss of all rows on each rank, its gradient through the own rows alone."""
    torch.manual_seed(3)
    image, text = (F.normalize(torch.randn(6, 16), dim=-1).requires_grad_() for _ in range(2))
    keys = torch.stack([torch.arange(6), torch.arange(6), torch.ones(6).long()], 1)
    model = make_model(negatives="official", itc_gradient=choice)
    first, own = 2, slice(2, 6)

    def gather(*parts):
        wholes = image, text, keys
        assert all(torch.equal(part, whole[own]) for part, whole in zip(parts, wholes, strict=True))
        return *wholes, first

    model.gather = gather
    loss = pairs.contrast_groups(model, keys[own], pairs.Features(image[own], text[own]), None)
    logits = image @ text.T / model.temperature
    target = torch.arange(6)
    both = [F.cross_entropy(x, target, reduction="none") for x in (logits, logits.T)]
    rows = slice(None) if choice == "own_rank" else own
    expected = (both[0][rows].mean() + both[1][rows].mean()) / 2
    torch.testing.assert_close(loss, expected)
    found = torch.autograd.grad(loss, image)[0]
    whole = torch.autograd.grad(expected, image)[0]
    torch.testing.assert_close(found[own], whole[own])
    assert bool(found[:first].any()) == (choice == "all_ranks")
