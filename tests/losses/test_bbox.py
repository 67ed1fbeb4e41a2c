"""Box loss: GIoU of known pairs, finite values and gradients whatever the boxes."""

import pytest
import torch

from relvlm.losses.bbox import BoxHead, bbox_loss, generalised_iou


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([0, 0, 2, 2], [0, 0, 2, 2], 1.0),
        ([0, 0, 2, 2], [1, 1, 3, 3], 1 / 7 - 2 / 9),  # hull 9, union 7, shared 1
        ([0, 0, 1, 1], [2, 0, 3, 1], -1 / 3),  # apart: hull 3, union 2
        ([0, 0, 4, 4], [1, 1, 2, 3], 2 / 16),  # inside: the hull is the larger box
        ([0, 0, 1, 1], [1, 0, 2, 1], 0.0),  # touching
    ],
)
def test_giou_of_known_pairs(a, b, expected):
    a, b = torch.tensor([a], dtype=torch.float32), torch.tensor([b], dtype=torch.float32)
    assert generalised_iou(a, b).item() == pytest.approx(expected, abs=1e-6)
    assert generalised_iou(b, a).item() == pytest.approx(expected, abs=1e-6)


def test_loss_is_l1_and_giou_over_the_number_of_boxes():
    predicted = torch.tensor([[0.5, 0.5, 0.2, 0.2], [0.3, 0.3, 0.2, 0.4]])
    target = torch.tensor([[0.5, 0.5, 0.2, 0.2], [0.4, 0.3, 0.2, 0.4]])
    # second pair: shared .1 x .4 = .04, union .12, hull .3 x .4 = .12; L1 .1
    expected = (0 + 0 + 0.1 + 1 - 0.04 / 0.12) / 2
    assert bbox_loss(predicted, target).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("predicted", [[0.5, 0.5, 0.0, 0.0], [0.1, 0.9, 0.0, 0.3], [0.0, 0.0, 1e-30, 1.0]])
@pytest.mark.parametrize("target", [[0.5, 0.5, 0.0, 0.0], [0.7, 0.2, 0.3, 0.0], [1.0, 1.0, 1.0, 1.0]])
def test_degenerate_boxes_give_finite_loss_and_gradient(predicted, target):
    predicted = torch.tensor([predicted], requires_grad=True)
    value = bbox_loss(predicted, torch.tensor([target]))
    value.backward()
    assert value.isfinite() and predicted.grad.isfinite().all()


def test_without_boxes_it_is_zero_with_gradient():
    head = BoxHead(4)
    value = bbox_loss(head(torch.zeros(0, 4)), torch.zeros(0, 4))
    value.backward()
    assert value == 0 and all(p.grad is not None and p.grad.abs().max() == 0 for p in head.parameters())


def test_descent_moves_a_box_onto_its_target():
    target = torch.tensor([[0.7, 0.3, 0.2, 0.4]])
    raw = torch.zeros(1, 4, requires_grad=True)
    optimizer = torch.optim.Adam([raw], lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        bbox_loss(raw.sigmoid(), target).backward()
        optimizer.step()
    torch.testing.assert_close(raw.sigmoid().detach(), target, rtol=0, atol=0.03)


def test_bf16_predictions_are_scored_in_fp32():
    boxes = torch.rand(3, 4).bfloat16()
    assert bbox_loss(boxes, torch.rand(3, 4)).dtype == torch.float32


def test_head_gives_fractions_of_the_image():
    boxes = BoxHead(4)(100 * torch.randn(6, 4))
    assert boxes.shape == (6, 4) and ((boxes >= 0) & (boxes <= 1)).all()
