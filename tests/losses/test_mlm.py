"""MLM: cross-entropy over the masked tokens, mixed with the teacher's; the tied head."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import BertConfig
from transformers.models.bert.modeling_bert import BertOnlyMLMHead

from relvlm.losses.mlm import MLMHead, mlm_loss


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
    assert head.decoder.weight is words.weight
