"""MRC: the head over [subject; object], its size in the paper, and the loss."""

import torch
import torch.nn.functional as F

from relvlm.losses.mrc import MRCHead, mrc_loss


def test_head_is_two_layers_over_subject_then_object():
    torch.manual_seed(0)
    head, cls = MRCHead(6, 10, 4), torch.randn(5, 6)
    subject, object_ = torch.tensor([0, 4, 4]), torch.tensor([1, 0, 4])
    pair = torch.cat([cls[subject], cls[object_]], dim=-1)
    torch.testing.assert_close(head(cls, subject, object_), head.second(torch.relu(head.first(pair))))


def test_subject_and_object_are_not_interchangeable():
    torch.manual_seed(0)
    head, cls = MRCHead(6, 10, 4), torch.randn(2, 6)
    zero, one = torch.tensor([0]), torch.tensor([1])
    assert not torch.allclose(head(cls, zero, one), head(cls, one, zero))


def test_size_is_the_papers_at_base_width():
    parameters = sum(p.numel() for p in MRCHead(768, 3072, 310).parameters())
    assert round(parameters / 1e6, 1) == 5.7


def test_loss_is_the_mean_cross_entropy_in_fp32():
    logits, relation = torch.randn(3, 7), torch.tensor([6, 0, 2])
    torch.testing.assert_close(mrc_loss(logits, relation), F.cross_entropy(logits, relation))
    assert mrc_loss(logits.bfloat16(), relation).dtype == torch.float32
    torch.testing.assert_close(mrc_loss(logits[:1], relation[:1]), F.cross_entropy(logits[:1], relation[:1]))


def test_without_triplets_it_is_zero_with_gradient():
    head, cls = MRCHead(6, 10, 4), torch.randn(2, 6, requires_grad=True)
    none = torch.zeros(0, dtype=torch.long)
    value = mrc_loss(head(cls, none, none), none)
    value.backward()
    assert value == 0 and all(p.grad is not None and p.grad.abs().max() == 0 for p in head.parameters())
    assert cls.grad.abs().max() == 0
