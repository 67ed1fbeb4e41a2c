"""The packed text encoder: each sequence as if alone, and as Hugging Face's BERT with the same weights."""

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertModel

from relvlm.config.schema import TextConfig
from relvlm.encoders.packing import offsets_of
from relvlm.encoders.text import Residual, SelfAttention, TextEncoder, init_bert

WORDS = 30
LENGTHS = [4, 1, 7]


def make(norm="post", dropout=0.0) -> TextEncoder:
    torch.manual_seed(0)
    config = TextConfig(layers=2, heads=2, width=16, max_positions=8, dropout=dropout, norm=norm, init_std=0.3)
    encoder = TextEncoder(config, WORDS)
    for part in encoder.modules():  # zero biases and unit norms would hide a mistake
        for parameter in part.parameters(recurse=False):
            if parameter.dim() == 1:
                nn.init.normal_(parameter, mean=0.5, std=0.2)
    return encoder


def texts() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randint(0, WORDS, (sum(LENGTHS),)), offsets_of(torch.tensor(LENGTHS))


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_each_packed_sequence_is_as_alone(norm):
    encoder, (ids, cu) = make(norm).double(), texts()
    packed = encoder(ids, cu)
    for start, end in zip(cu[:-1].tolist(), cu[1:].tolist(), strict=True):
        alone = encoder(ids[start:end], torch.tensor([0, end - start], dtype=torch.int32))
        torch.testing.assert_close(packed[start:end], alone)


def copy_to_bert(encoder: TextEncoder, bert: BertModel) -> None:
    ours, theirs = encoder.embeddings, bert.embeddings
    theirs.word_embeddings.load_state_dict(ours.word.state_dict())
    theirs.position_embeddings.load_state_dict(ours.position.state_dict())
    theirs.token_type_embeddings.load_state_dict(ours.token_type.state_dict())
    theirs.LayerNorm.load_state_dict(ours.norm.state_dict())
    for mine, layer in zip(encoder.layers, bert.encoder.layer, strict=True):
        qkv = mine.attention.inner.qkv
        heads = layer.attention.self
        for part, weight, bias in zip(
            (heads.query, heads.key, heads.value), qkv.weight.chunk(3), qkv.bias.chunk(3), strict=True
        ):
            part.load_state_dict({"weight": weight, "bias": bias})
        layer.attention.output.dense.load_state_dict(mine.attention.inner.out.state_dict())
        layer.attention.output.LayerNorm.load_state_dict(mine.attention.norm.state_dict())
        layer.intermediate.dense.load_state_dict(mine.feed_forward.inner[0].state_dict())
        layer.output.dense.load_state_dict(mine.feed_forward.inner[2].state_dict())
        layer.output.LayerNorm.load_state_dict(mine.feed_forward.norm.state_dict())


def test_it_equals_hugging_face_bert():
    encoder, (ids, cu) = make().double(), texts()
    bert = BertModel(
        BertConfig(
            vocab_size=WORDS, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
            max_position_embeddings=8, layer_norm_eps=1e-12,
        ),
        add_pooling_layer=False,
    ).double().eval()  # fmt: skip
    copy_to_bert(encoder, bert)
    mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    padded = torch.zeros(mask.shape, dtype=torch.long)
    padded[mask] = ids
    expected = bert(padded, attention_mask=mask.long()).last_hidden_state[mask]
    torch.testing.assert_close(encoder(ids, cu), expected)


def test_a_pre_norm_encoder_ends_in_a_norm():
    encoder, (ids, cu) = make("pre"), texts()
    nn.init.ones_(encoder.norm.weight)
    nn.init.zeros_(encoder.norm.bias)
    rows = encoder(ids, cu)
    torch.testing.assert_close(rows.mean(-1), torch.zeros(len(rows)), rtol=0, atol=1e-5)
    torch.testing.assert_close(rows.std(-1, correction=0), torch.ones(len(rows)), rtol=0, atol=1e-4)


def test_dropout_acts_in_training_alone():
    encoder, (ids, cu) = make(dropout=0.5), texts()
    assert not torch.equal(encoder(ids, cu), encoder(ids, cu))
    encoder.eval()
    assert torch.equal(encoder(ids, cu), encoder(ids, cu))


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("read", [[0, 4, 5], [2, 11], list(range(12))], ids=str)
def test_rows_that_are_read_are_those_of_the_whole_with_their_gradients(read, norm):
    config = TextConfig(heads=2, width=16, dropout=0.0, norm=norm)
    torch.manual_seed(0)
    attend, cu = Residual(SelfAttention(16, 2, 0.0), config).double(), offsets_of(torch.tensor(LENGTHS))
    x, rows = torch.randn(12, 16).double().requires_grad_(), torch.tensor(read)
    nn.init.normal_(attend.inner.qkv.bias)
    found, expected = attend(x, cu, read=rows), attend(x, cu)[rows]
    torch.testing.assert_close(found, expected)
    inputs = (x, *attend.parameters())
    gradients = [torch.autograd.grad(y.square().sum(), inputs, allow_unused=True) for y in (found, expected)]
    torch.testing.assert_close(*gradients)


def test_norms_and_token_types_are_berts():
    encoder = make("pre")
    norms = [part for part in encoder.modules() if isinstance(part, nn.LayerNorm)]
    assert {part.eps for part in norms} == {1e-12} and len(norms) == 1 + 2 * 2 + 1
    assert encoder.embeddings.token_type.weight.shape == (2, 16)


def test_initial_scale_is_that_of_the_config():
    layers = nn.Sequential(nn.Linear(300, 300), nn.Embedding(300, 300), nn.LayerNorm(3), nn.Linear(3, 3, bias=False))
    init_bert(layers, 0.08)
    assert layers[0].weight.std().item() == pytest.approx(0.08, rel=0.02)
    assert layers[1].weight.std().item() == pytest.approx(0.08, rel=0.02)
    assert layers[0].bias.abs().max() == 0 and (layers[2].weight == 1).all()


def test_attention_weights_are_dropped_in_training_alone():
    torch.manual_seed(0)
    attention, x = SelfAttention(16, 2, dropout=0.5), torch.randn(6, 16)
    cu = torch.tensor([0, 4, 6], dtype=torch.int32)
    plain = attention.eval()(x, cu)
    assert torch.equal(plain, attention(x, cu))
    dropped = [attention.train()(x, cu) for _ in range(200)]
    assert not torch.equal(dropped[0], dropped[1])
    torch.testing.assert_close(torch.stack(dropped).mean(0), plain, rtol=0, atol=0.1)
