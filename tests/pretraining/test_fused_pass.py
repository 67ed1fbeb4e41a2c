"""One packed pass gives each query the rows of texts fused alone, in its order; whatever is saved."""

from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor
from toys import LATE, VIT, five_groups, toy_model

from relvlm.encoders.spans import Spans
from relvlm.pretraining.encode import encode
from relvlm.pretraining.fused_pass import FusionQuery, fused_pass
from relvlm.pretraining.savings import ALL_SAVINGS, Savings
from relvlm_kernels import Regions

TEXTS, VIEWS = torch.tensor([3, 0, 2, 2]), torch.tensor([1, 9, 4, 0])  # views 5 to 9 are the whole images
ROWS = torch.tensor([1, 2, 6, 12])  # of texts of 3, 4, 6 and 6 tokens: two of the first, then the last but 0, 1 of two
CHOICES = [ALL_SAVINGS, *(replace(ALL_SAVINGS, **{f.name: False}) for f in fields(Savings))]


def alone(model, encoded, text: int, view: int) -> Tensor:
    """All fused tokens of a text that looks at a view."""
    texts, views = encoded.texts, encoded.views
    x = texts.tokens_TD[texts.cu[text] : texts.cu[text + 1]]
    offsets = torch.tensor([0, len(x)], dtype=torch.int32)
    if isinstance(views.views, Regions):
        return model.fusion(x, views.tokens, views.views.pick(torch.tensor([view]), offsets))
    keys = views.tokens[views.key_cu[views.views[view]] : views.key_cu[views.views[view] + 1]]
    return model.fusion(x, keys, Spans(offsets, offsets, torch.tensor([0, len(keys)], dtype=torch.int32)))


@pytest.mark.parametrize("savings", CHOICES, ids=str)
@pytest.mark.parametrize("config", [VIT, LATE], ids=["boxes", "sequences"])
def test_each_query_gets_the_rows_it_reads_of_texts_fused_alone(config, savings):
    model, batch = toy_model(config).double(), five_groups("entities")
    batch = replace(batch, pixels=batch.pixels.double())
    encoded = encode(model, batch, config.fusion.region_mask)
    whole = [alone(model, encoded, *pair) for pair in zip(TEXTS.tolist(), VIEWS.tolist(), strict=True)]
    queries = [
        FusionQuery(TEXTS, VIEWS),
        FusionQuery(TEXTS, VIEWS, ROWS, tokens=sum(map(len, whole))),
        FusionQuery(TEXTS[1:], VIEWS[1:]),
        FusionQuery(TEXTS[2:], VIEWS[2:], torch.tensor([5, 6])),
    ]
    first, words, fewer, two = fused_pass(model.fusion, encoded.texts, encoded.views, queries, savings)
    torch.testing.assert_close(first, torch.stack([x[0] for x in whole]))
    torch.testing.assert_close(words, torch.cat(whole)[ROWS])
    torch.testing.assert_close(fewer, torch.stack([x[0] for x in whole[1:]]))
    torch.testing.assert_close(two, torch.stack([whole[2][5], whole[3][0]]))


@pytest.mark.parametrize("savings", [Savings(), Savings(one_pass=False), Savings(shared_keys=False)], ids=str)
def test_what_is_saved_is_not_computed(savings, monkeypatch):
    model, batch = toy_model(), five_groups("entities")
    encoded, passes = encode(model, batch, "cross_attention"), []
    model.fusion.register_forward_hook(lambda _, given, out: passes.append([len(given[0]), len(given[1]), len(out)]))
    queries = [FusionQuery(TEXTS, VIEWS), FusionQuery(TEXTS[1:], VIEWS[1:])]
    fused_pass(model.fusion, encoded.texts, encoded.views, queries, savings)
    images = 3 if savings.shared_keys else 7
    assert passes == ([[35, images, 7]] if savings.one_pass else [[19, 3, 4], [16, 3, 3]])


def test_texts_whose_tokens_are_all_known_are_gathered_without_counting_them(monkeypatch):
    model, batch = toy_model(), five_groups("captions")
    encoded, totals = encode(model, batch, "cross_attention"), []
    module = "relvlm.pretraining.fused_pass.gather_rows"
    from relvlm.encoders.packing import gather_rows

    monkeypatch.setattr(module, lambda cu, which, total: totals.append(total) or gather_rows(cu, which, total))
    known, unknown = FusionQuery(TEXTS, VIEWS, tokens=19), FusionQuery(TEXTS[:1], VIEWS[:1])
    for queries in ([known, known], [known, unknown], [unknown]):
        fused_pass(model.fusion, encoded.texts, encoded.views, queries)
    assert totals == [38, None, None]
