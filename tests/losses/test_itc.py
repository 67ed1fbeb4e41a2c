"""ITC against symmetric cross-entropy written out, its false negatives, soft targets and precision."""

import pytest
import torch
import torch.nn.functional as F

from relvlm.losses.itc import itc_loss, shared_targets

G, A, E, FIRST = 3, 5, 4, 1


def features(dtype=torch.float32):
    torch.manual_seed(0)
    images, texts = (F.normalize(torch.randn(A, E), dim=-1).to(dtype) for _ in range(2))
    return images, texts, torch.tensor([0.1])


def nothing_ignored() -> torch.Tensor:
    return torch.zeros(G, A, dtype=torch.bool)


def own(x: torch.Tensor) -> torch.Tensor:
    return x[FIRST : FIRST + G]


def loss(images, texts, temperature, i2t=None, t2i=None, **soft):
    i2t = nothing_ignored() if i2t is None else i2t
    t2i = nothing_ignored() if t2i is None else t2i
    return itc_loss(own(images), own(texts), images, texts, temperature, FIRST, i2t, t2i, **soft)


def test_it_is_the_mean_of_both_ways_of_cross_entropy():
    images, texts, temperature = features()
    total = 0.0
    for g in range(FIRST, FIRST + G):
        for one, many in ((images[g], texts), (texts[g], images)):
            similarity = torch.tensor([float(one @ other) for other in many]) / 0.1
            total += float(similarity.exp().sum().log() - similarity[g])
    assert loss(images, texts, temperature).item() == pytest.approx(total / (2 * G), rel=1e-5)


def test_a_false_negative_neither_attracts_nor_repels():
    images, texts, temperature = features()
    ignored = nothing_ignored()
    ignored[0, 4] = True  # text 4 also describes image 1, the first own one
    texts.requires_grad_()
    value = loss(images, texts, temperature, i2t=ignored, t2i=ignored)
    rows = own(texts.detach()), own(images)
    expected = []
    for g in range(G):
        kept = [a for a in range(A) if not ignored[g, a]]
        target = torch.tensor(kept.index(FIRST + g))
        expected.append(F.cross_entropy(rows[1][g] @ texts.detach()[kept].T / 0.1, target))
        expected.append(F.cross_entropy(rows[0][g] @ images[kept].T / 0.1, target))
    torch.testing.assert_close(value.detach(), torch.stack(expected).mean())

    only_first = itc_loss(images[1:2], texts[1:2].detach(), images, texts, temperature, 1, ignored[:1], ignored[:1])
    (gradient,) = torch.autograd.grad(only_first, texts)
    assert gradient[4].abs().max() == 0 and gradient[0].abs().max() > 0


def test_the_matching_column_is_never_ignored():
    images, texts, temperature = features()
    everything = torch.ones(G, A, dtype=torch.bool)
    assert loss(images, texts, temperature, i2t=everything, t2i=everything).item() == pytest.approx(0.0)


def test_soft_targets_replace_the_one_hot_ones():
    images, texts, temperature = features()
    soft_i2t, soft_t2i = torch.rand(2, G, A).softmax(-1)
    value = loss(images, texts, temperature, soft_i2t_GA=soft_i2t, soft_t2i_GA=soft_t2i)
    i2t = F.cross_entropy(own(images) @ texts.T / 0.1, soft_i2t)
    t2i = F.cross_entropy(own(texts) @ images.T / 0.1, soft_t2i)
    torch.testing.assert_close(value, (i2t + t2i) / 2)


def test_one_hot_soft_targets_change_nothing_even_with_false_negatives():
    images, texts, temperature = features()
    ignored = nothing_ignored()
    ignored[1, 0] = True
    one_hot = torch.eye(A)[FIRST : FIRST + G]
    soft = loss(images, texts, temperature, ignored, ignored, soft_i2t_GA=one_hot, soft_t2i_GA=one_hot)
    assert soft.isfinite()
    torch.testing.assert_close(soft, loss(images, texts, temperature, ignored, ignored))


def test_a_soft_target_of_a_false_negative_counts_for_nothing():
    images, texts, temperature = features()
    ignored, soft = nothing_ignored(), torch.full((G, A), 1 / A)
    ignored[:, 4] = True
    found = loss(images, texts, temperature, ignored, ignored, soft_i2t_GA=soft, soft_t2i_GA=soft)
    one_way = [
        -(soft[:, :4] * (rows @ columns[:4].T / 0.1).log_softmax(-1)).sum(-1).mean()
        for rows, columns in ((own(images), texts), (own(texts), images))
    ]
    torch.testing.assert_close(found, sum(one_way) / 2)


def test_columns_of_the_same_index_share_a_target():
    shared = shared_targets(torch.tensor([7, 5, 6]), torch.tensor([5, 7, 7, 6, 5, 7]))
    third = 1 / 3
    expected = [[0, third, third, 0, 0, third], [0.5, 0, 0, 0, 0.5, 0], [0, 0, 0, 1, 0, 0]]
    torch.testing.assert_close(shared, torch.tensor(expected, dtype=torch.float32))


def test_bf16_features_are_compared_in_fp32():
    images, texts, temperature = features(torch.bfloat16)
    value = loss(images, texts, temperature.bfloat16())
    assert value.dtype == torch.float32
    expected = loss(images.float(), texts.float(), temperature.bfloat16().float())
    torch.testing.assert_close(value, expected, rtol=0, atol=0)


def test_features_and_temperature_get_the_gradients_of_the_formula():
    images, texts, _ = features()
    temperature = torch.tensor([0.1], requires_grad=True)
    images.requires_grad_()
    found = torch.autograd.grad(loss(images, texts, temperature), (images, temperature))
    target = torch.arange(FIRST, FIRST + G)
    plain = F.cross_entropy(own(images) @ texts.T / temperature, target)
    plain = (plain + F.cross_entropy(own(texts) @ images.T / temperature, target)) / 2
    torch.testing.assert_close(found, torch.autograd.grad(plain, (images, temperature)))
