"""The momentum teacher alone: average, ramp, queue, soft targets, state. In a step: test_contrast.py."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from toys import VIT, five_groups, toy_pretraining

from relvlm.config.schema import MomentumConfig
from relvlm.losses.mlm import MLMHead
from relvlm.pretraining.encode import Features, encode
from relvlm.pretraining.savings import Savings
from relvlm.pretraining.teacher import Teacher, update_and_encode_teacher

E, Q = 3, 5


class Student(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.vision, self.fusion = nn.Linear(2, 2), nn.Linear(2, 2)
        self.image_projection, self.text_projection = nn.Linear(2, E), nn.Linear(2, E)
        self.text = nn.Module()
        self.text.embeddings = nn.Module()
        self.text.embeddings.word = nn.Embedding(6, 2)
        self.mlm_head = MLMHead(self.text.embeddings.word)


def make(**settings: float | int) -> tuple[Student, Teacher]:
    torch.manual_seed(0)
    student = Student()
    return student, Teacher(student, MomentumConfig(enabled=True, **({"queue": Q} | settings)), E)


def unit(rows: int) -> Tensor:
    return F.normalize(torch.randn(rows, E), dim=-1)


def test_it_starts_as_a_copy_that_shares_nothing_and_takes_no_gradient():
    student, teacher = make()
    mine, theirs = dict(teacher.named_parameters()), dict(student.named_parameters())
    assert mine.keys() == theirs.keys()
    for name in mine:
        assert torch.equal(mine[name], theirs[name]) and mine[name] is not theirs[name]
        assert not mine[name].requires_grad and theirs[name].requires_grad
    assert teacher.mlm_head.decoder.weight is teacher.text.embeddings.word.weight


def test_update_is_the_exponential_moving_average():
    student, teacher = make(decay=0.75)
    before = {n: p.clone() for n, p in teacher.named_parameters()}
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(1.0)
    teacher.update(student)
    teacher.update(student)
    for name, parameter in teacher.named_parameters():
        torch.testing.assert_close(parameter, before[name] + 1 - 0.75**2)
    assert teacher.seen == 2


def test_a_bf16_student_is_averaged_in_fp32():
    student, teacher = make(decay=0.999)
    before = teacher.vision.weight.clone()
    student.bfloat16()
    with torch.no_grad():
        student.vision.weight.fill_(1.0)
    teacher.update(student)
    assert teacher.vision.weight.dtype == torch.float32
    torch.testing.assert_close(teacher.vision.weight, 0.999 * before + 0.001)


def test_alpha_ramps_up_linearly():
    student, teacher = make(alpha=0.4, ramp_steps=4)
    seen = []
    for _ in range(7):
        teacher.update(student)
        seen.append(teacher.alpha)
    assert seen == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.4, 0.4])
    assert make(alpha=0.4)[1].alpha == 0.4


def test_the_queue_is_a_ring():
    _, teacher = make()
    images, texts = teacher.image_queue.clone(), teacher.text_queue.clone()
    assert images.norm(dim=-1).allclose(torch.ones(Q))
    first, second = (unit(3), unit(3)), (unit(3), unit(3))
    teacher.enqueue(*first)
    assert torch.equal(teacher.image_queue, torch.cat([first[0], images[3:]]))
    teacher.enqueue(*second)
    assert teacher.pointer.item() == 1
    for queue, a, b in (
        (teacher.image_queue, first[0], second[0]),
        (teacher.text_queue, first[1], second[1]),
    ):
        assert torch.equal(queue, torch.stack([b[2], a[1], a[2], b[0], b[1]]))
    assert not torch.equal(teacher.text_queue, texts)


def test_features_that_are_not_finite_stay_out_of_the_queue():
    _, teacher = make()
    before = teacher.image_queue.clone()
    images, texts = unit(3), unit(3)
    images[1, 0], texts[2, 1] = float("nan"), float("inf")
    teacher.enqueue(images, texts)
    assert torch.equal(teacher.image_queue, torch.cat([images[:1], before[1:]]))
    assert teacher.text_queue.isfinite().all() and teacher.pointer.item() == 3


def test_soft_targets_sum_to_one_and_leave_false_negatives_out():
    _, teacher = make(alpha=0.4)
    images, texts, temperature = unit(2), unit(2), torch.tensor([0.1])
    wrong = torch.tensor([[True, False], [True, True]])  # text 1 also describes view 0; the diagonal is no matter
    keys = teacher.contrast_keys(Features(images, texts), temperature, wrong)
    assert torch.equal(keys.images, torch.cat([images, teacher.image_queue]))
    assert keys.excluded_t2i.nonzero().tolist() == [[1, 0]] and keys.excluded_i2t.nonzero().tolist() == [[0, 1]]
    for soft in (keys.soft_i2t, keys.soft_t2i):
        torch.testing.assert_close(soft.sum(-1), torch.ones(2))
    assert keys.soft_i2t[0, 1] == 0 and keys.soft_t2i[1, 0] == 0
    one_way = (images @ keys.texts.T / 0.1).masked_fill(keys.excluded_i2t, -1e30).softmax(-1)
    torch.testing.assert_close(keys.soft_i2t, 0.4 * one_way + 0.6 * torch.eye(2, 2 + Q))


def test_its_state_goes_through_a_file(tmp_path):
    student, teacher = make(alpha=0.4, ramp_steps=4)
    teacher.update(student)
    teacher.update(student)
    teacher.enqueue(unit(3), unit(3))
    torch.save(teacher.state_dict(), tmp_path / "teacher.pt")
    _, other = make(alpha=0.4, ramp_steps=4)
    other.load_state_dict(torch.load(tmp_path / "teacher.pt", weights_only=True))
    assert (other.seen, other.alpha, other.pointer.item()) == (2, teacher.alpha, 3)
    assert torch.equal(other.text_queue, teacher.text_queue)


def test_it_moves_and_encodes_for_aligned_batches_alone():
    step, savings = toy_pretraining(replace(VIT, momentum=MomentumConfig(enabled=True, queue=8))), Savings()
    captions, mrc = five_groups("captions"), five_groups("mrc")
    assert update_and_encode_teacher(step.teacher, step.model, [mrc] * 2, "cross_attention", savings) == [None] * 2
    assert update_and_encode_teacher(None, step.model, [captions], "cross_attention", savings) == [None]
    assert step.teacher.seen == 0
    first, second = update_and_encode_teacher(step.teacher, step.model, [captions] * 2, "cross_attention", savings)
    assert step.teacher.seen == 1 and first.masked_MD.shape == (5, 32)
    torch.testing.assert_close(first, second)
    features = encode(step.teacher, captions, "cross_attention").features
    torch.testing.assert_close(first.features, features)


def test_the_teacher_follows_the_student_in_a_step():
    step = toy_pretraining(replace(VIT, momentum=MomentumConfig(enabled=True, decay=0.75, queue=8)))
    teacher_bias, student_bias = step.teacher.text_projection.bias, step.model.text_projection.bias
    start = teacher_bias.clone()
    with torch.no_grad():
        student_bias.add_(1.0)
    step(five_groups("captions"))
    torch.testing.assert_close(teacher_bias, start + 0.25)
    assert teacher_bias.grad is None
