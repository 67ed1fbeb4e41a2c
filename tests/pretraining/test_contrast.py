"""ITC over the groups of all ranks, and against the momentum teacher's queues."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from toys import TAUGHT, VIT, five_groups, toy_pretraining

from relvlm.config.schema import MomentumConfig
from relvlm.pretraining.contrast import Contrast
from relvlm.pretraining.encode import Features
from relvlm.pretraining.means import ONE_RANK, Ranks
from relvlm.pretraining.negatives import false_negatives, group_keys


@pytest.mark.parametrize("alpha", [0.0, 0.4])
def test_momentum_itc_equals_albef_written_out(alpha):
    """Columns = momentum features of the batch, then the queue; targets = alpha softmax + (1 - alpha) one-hot."""
    momentum = MomentumConfig(enabled=True, decay=0.9, queue=8, alpha=alpha)
    step, batch = toy_pretraining(replace(VIT, momentum=momentum)), five_groups("captions")
    batch = replace(batch, text_key=torch.tensor([1, 1, 3, 4, 1]))  # of neighbours, and of others
    model, teacher = step.model, step.teacher
    torch.nn.init.constant_(model.temperature, 0.5)  # so high that every column counts
    queues = teacher.image_queue.clone(), teacher.text_queue.clone()
    found = step(batch).values["itc"]

    def features(owner, image_projection, text_projection):
        image = image_projection(owner.vision(batch.pixels)[:, 0])
        text = text_projection(owner.text(batch.text_ids, batch.regions.offsets)[batch.regions.offsets[:-1].long()])
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
    keys = group_keys(batch)
    wrong = false_negatives(keys, keys)
    i2t = one_way(image, image_m, text_m, queues[1], wrong.T)
    t2i = one_way(text, text_m, image_m, queues[0], wrong)
    torch.testing.assert_close(found, ((i2t + t2i) / 2).detach())


def test_the_queue_takes_the_batch_and_wraps_around():
    step = toy_pretraining(replace(VIT, momentum=MomentumConfig(enabled=True, queue=8)))
    teacher, before = step.teacher, step.teacher.text_queue.clone()
    step(five_groups("captions"))
    assert teacher.pointer.item() == 5
    assert torch.equal(teacher.text_queue[5:], before[5:])
    assert not torch.isclose(teacher.text_queue[:5], before[:5]).all(1).any()
    step(five_groups("captions"))
    assert teacher.pointer.item() == 2
    assert not torch.equal(teacher.text_queue[0], before[0])


def test_the_queue_takes_the_features_of_all_ranks():
    step = toy_pretraining(TAUGHT)
    step.contrast.ranks = Ranks(2, lambda *tensors: (*(torch.cat([x, x]) for x in tensors), 0), lambda x: 2 * x)
    step(five_groups("captions"))
    assert step.teacher.pointer.item() == 10


def test_beside_a_queue_columns_are_those_of_the_pool():
    """Pools of three and two groups: their ITC together is that of each by itself, by its rows."""
    step, batch = toy_pretraining(TAUGHT), five_groups("captions")
    torch.manual_seed(2)
    features, taught = (Features(*(F.normalize(torch.randn(5, 16), dim=-1) for _ in range(2))) for _ in range(2))
    step.teacher.seen, keys = 5, group_keys(replace(batch, pool=torch.tensor([4, 4, 4, 9, 9])))

    def itc(rows: slice) -> torch.Tensor:
        own, by_teacher = (Features(*(x[rows] for x in each)) for each in (features, taught))
        return step.contrast.beside_queue(step.teacher, keys[rows], own, by_teacher, torch.tensor([0.2]))

    parts = (3 * itc(slice(0, 3)) + 2 * itc(slice(3, 5))) / 5
    torch.testing.assert_close(itc(slice(0, 5)), parts)
    keys[:, 3] = 0
    assert not torch.isclose(itc(slice(0, 5)), parts, rtol=1e-3)


def test_nothing_that_the_teacher_has_not_encoded_goes_into_its_queue():
    step, batch = toy_pretraining(TAUGHT), five_groups("captions")
    features = Features(*(F.normalize(torch.randn(5, 16), dim=-1) for _ in range(2)))
    losses = step.contrast([batch], [features], [None], torch.tensor([0.07]))
    plain = Contrast(VIT, ONE_RANK, None)([batch], [features], [None], torch.tensor([0.07]))
    torch.testing.assert_close(losses, plain)
    assert losses.keys() == {"captions"} and step.teacher.pointer.item() == 0


@pytest.mark.parametrize("choice", ["all_ranks", "own_rank"])
def test_the_itc_gradient_of_two_ranks(choice):
    """own_rank (X-VLM): the loss of all rows on each rank, its gradient through the own rows alone."""
    torch.manual_seed(3)
    image, text = (F.normalize(torch.randn(6, 16), dim=-1).requires_grad_() for _ in range(2))
    keys = torch.stack([torch.arange(6), torch.arange(6), torch.ones(6).long()], 1)
    config = replace(VIT, negatives="official", itc_gradient=choice)
    first, own = 2, slice(2, 6)

    def gather(*parts):
        wholes = image, text, keys
        assert all(torch.equal(part, whole[own]) for part, whole in zip(parts, wholes, strict=True))
        return *wholes, first

    temperature = torch.tensor([0.07])
    contrast = Contrast(config, Ranks(2, gather, torch.clone), None)
    loss = contrast.over_ranks(keys[own], Features(image[own], text[own]), temperature)
    logits = image @ text.T / temperature
    target = torch.arange(6)
    both = [F.cross_entropy(x, target, reduction="none") for x in (logits, logits.T)]
    rows = slice(None) if choice == "own_rank" else own
    share = 1 if choice == "own_rank" else 2 * 4 / 6  # of rows that are averaged over two ranks
    expected = share * (both[0][rows].mean() + both[1][rows].mean()) / 2
    torch.testing.assert_close(loss, expected)
    found = torch.autograd.grad(loss, image)[0]
    whole = torch.autograd.grad(expected, image)[0]
    torch.testing.assert_close(found[own], whole[own])
    assert bool(found[:first].any()) == (choice == "all_ranks")
