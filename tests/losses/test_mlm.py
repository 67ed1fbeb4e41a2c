"""MLM: cross-entropy over the masked tokens, mixed with the teacher's; the tied head."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import BertConfig
from transformers.models.bert.modeling_bert import BertOnlyMLMHead

from relvlm.losses import mlm
from relvlm.losses.mlm import MLMHead, SoftWords, mlm_loss


def made():
    torch.manual_seed(0)
    return torch.randn(4, 9), torch.tensor([1, 0, 8, 8]), torch.randn(4, 9)


def test_it_is_the_mean_cross_entropy():
    logits, label, _ = made()
    torch.testing.assert_close(mlm_loss(logits, label), F.cross_entropy(logits, label))


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_alpha_mixes_in_the_cross_entropy_to_the_teacher(alpha):
    logits, label, teacher = made()
    soft = -(teacher.softmax(-1) * logits.log_softmax(-1)).sum(-1).mean()
    expected = (1 - alpha) * F.cross_entropy(logits, label) + alpha * soft
    torch.testing.assert_close(mlm_loss(logits, label, teacher, alpha), expected)


@pytest.mark.parametrize("teacher", [None, torch.zeros(0, 9)])
def test_without_masked_tokens_it_is_zero_with_gradient(teacher):
    weight = torch.randn(9, 3, requires_grad=True)
    value = mlm_loss(torch.zeros(0, 3) @ weight.T, torch.zeros(0, dtype=torch.long), teacher, 0.4)
    value.backward()
    assert value == 0 and weight.grad is not None and weight.grad.abs().max() == 0


def test_bf16_logits_are_scored_in_fp32():
    logits, label, teacher = made()
    value = mlm_loss(logits.bfloat16(), label, teacher.bfloat16(), 0.4)
    assert value.dtype == torch.float32
    torch.testing.assert_close(
        value, mlm_loss(logits.bfloat16().float(), label, teacher.bfloat16().float(), 0.4), rtol=0, atol=0
    )


def test_head_equals_berts_with_its_decoder_tied():
    torch.manual_seed(0)
    words = nn.Embedding(20, 8)
    head = MLMHead(words)
    bert = BertOnlyMLMHead(BertConfig(vocab_size=20, hidden_size=8, layer_norm_eps=1e-12)).predictions
    bert.transform.dense.load_state_dict(head.transform.state_dict())
    bert.transform.LayerNorm.load_state_dict(head.norm.state_dict())
    bert.decoder.load_state_dict(head.decoder.state_dict())
    rows = torch.randn(5, 8)
    torch.testing.assert_close(head(rows), bert(rows))
    assert head.norm.eps == 1e-12
    assert head.decoder.weight is words.weight


def gradients(head: MLMHead, rows: torch.Tensor, loss: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(3 * loss, [rows, *head.parameters()]))


@pytest.mark.parametrize("rows_at_once", [1, 3, 100])
@pytest.mark.parametrize("alpha", [None, 0.4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rows_M", [4, 7], ids=["few", "many"])
def test_the_heads_loss_equals_that_of_all_logits(rows_M, rows_at_once, alpha, dtype, monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(mlm, "SCORES_AT_ONCE", 20 * rows_at_once)
    head, teacher = (MLMHead(nn.Embedding(20, 6)).to(dtype) for _ in "ab")
    teacher.requires_grad_(False)
    rows, soft_rows = (
        torch.randn(rows_M, 6, dtype=dtype, requires_grad=True),
        torch.randn(rows_M, 6, dtype=dtype),
    )
    label = torch.randint(0, 20, (rows_M,))
    soft = None if alpha is None else SoftWords(teacher, soft_rows, alpha)
    plain = mlm_loss(head(rows), label, *(() if soft is None else (teacher(soft_rows), alpha)))
    found = head.loss(rows, label, soft)
    torch.testing.assert_close(found, plain)
    for ours, expected in zip(gradients(head, rows, found), gradients(head, rows, plain), strict=True):
        torch.testing.assert_close(ours, expected)


def test_without_a_weight_the_teacher_has_none():
    logits, label, teacher = made()
    assert mlm_loss(logits, label, teacher) == mlm_loss(logits, label)


def test_scores_are_held_in_chunks_of_64_mib():
    assert mlm.SCORES_AT_ONCE * 4 == 64 * 2**20


@pytest.mark.parametrize("rows_M", [3, 8, 50])
def test_the_loss_keeps_the_smaller_of_logits_and_words_gradient(rows_M):
    head, kept = MLMHead(nn.Embedding(1000, 8)), []
    own = {p.data_ptr() for p in head.parameters()}
    rows, label = torch.randn(rows_M, 8, requires_grad=True), torch.zeros(rows_M, dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x), lambda x: x):
        head.loss(rows, label)
    largest = max((x for x in kept if x.data_ptr() not in own), key=torch.numel)
    assert largest.shape == ((rows_M, 1000) if rows_M <= 8 else (1000, 8))


def test_the_loss_of_no_rows_is_zero_with_gradient_for_what_is_no_embedding():
    head = MLMHead(nn.Embedding(20, 8))
    value = head.loss(torch.zeros(0, 8), torch.zeros(0, dtype=torch.long))
    value.backward()
    assert value == 0
    untouched = [name for name, p in head.named_parameters() if p.grad is None or p.grad.any()]
    assert untouched == ["decoder.weight"]


def test_the_loss_in_chunks_under_autocast_is_as_near_to_fp32_as_that_of_all_logits():
    torch.manual_seed(0)
    head, rows, label = MLMHead(nn.Embedding(20, 6)), torch.randn(7, 6, requires_grad=True), torch.arange(7)
    with torch.autocast("cpu", torch.bfloat16):
        chunked, plain = head.loss(rows, label), mlm_loss(head(rows), label)
    exact = gradients(head, rows, mlm_loss(head(rows), label))

    def error(loss: torch.Tensor) -> float:
        found = gradients(head, rows, loss)
        return max(float((a - b).norm() / b.norm()) for a, b in zip(found, exact, strict=True))

    assert chunked.dtype == torch.float32
    assert 0 < error(chunked) < max(1.5 * error(plain), 0.02)
