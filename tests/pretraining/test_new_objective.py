"""What a new objective takes (docs/adding_an_objective.md): a loss, its row in OBJECTIVES, its name in KINDS."""

import csv
import sys
from collections.abc import Callable, MutableMapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from support.batches import made_batch
from support.programs import run as program
from torch import Tensor
from toys import WORDS, five_groups, toy_pretraining

from relvlm.config.load import load_config
from relvlm.config.schema import DataConfig, KindRatios
from relvlm.data.batches.batch import Batch, Section
from relvlm.engine.columns import objectives as logged
from relvlm.kinds import KINDS
from relvlm.losses.precision import at_least_fp32
from relvlm.model import RelVLM
from relvlm.plan.workload import Workload
from relvlm.pretraining.chunks import chunks_of
from relvlm.pretraining.fused_pass import FusionQuery
from relvlm.pretraining.objectives import OBJECTIVES, Objective, ObjectiveValue, SectionInput
from relvlm.pretraining.step import Pretraining

# ---- what would be relvlm/losses/consistency.py ----------------------------------------------------------


def consistency_loss(whole_GD: Tensor, masked_GD: Tensor) -> Tensor:
    """1 - cosine of fused rows, a mean in fp32 or more over groups; 0 (with gradient) where there is none."""
    cosine_G = F.cosine_similarity(at_least_fp32(whole_GD), at_least_fp32(masked_GD), dim=-1)
    return (1 - cosine_G).sum() / max(len(cosine_G), 1)


# ---- what would stand in relvlm/pretraining/objectives.py ------------------------------------------------


def consistency_query(x: SectionInput) -> FusionQuery:
    """Each text at its own view, whole and with words masked."""
    texts = torch.cat([x.texts.of_group[x.section.groups], x.texts.masked[x.section.groups]])
    return FusionQuery(texts, (x.first + x.own_G).repeat(2))


def consistency_value(model: RelVLM, x: SectionInput, cls_ND: Tensor) -> ObjectiveValue:
    whole_GD, masked_GD = cls_ND.chunk(2)
    return ObjectiveValue(consistency_loss(whole_GD, masked_GD))


def consistency_counted(batch: Batch, section: Section, rule: str) -> int:
    """Groups."""
    return section.groups.stop - section.groups.start


def consistency_unused(model: RelVLM, row_1D: Tensor) -> None:
    """It has no parameters of its own."""
    return None


ROW = Objective(consistency_query, consistency_value, consistency_counted, consistency_unused)

# ----------------------------------------------------------------------------------------------------------

CAPTIONS = replace(KINDS["captions"], objectives=("itc", "itm", "mlm", "consistency"))


def register(put: Callable[[MutableMapping, str, object], None]) -> None:
    put(OBJECTIVES, "consistency", ROW)
    put(KINDS, "captions", CAPTIONS)


@pytest.fixture()
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch.setitem)


def plainly(step: Pretraining, batch: Batch) -> Tensor:
    """One padded text with one image at a time."""
    model, edges = step.model, batch.regions.offsets.tolist()
    rows = []
    for ids_T in (batch.text_ids, batch.mlm_ids):
        spans = zip(edges, edges[1:], batch.regions.image.tolist(), strict=False)
        fused = [_fused(model, ids_T[a:b], batch.pixels[image]) for a, b, image in spans]
        rows.append(torch.stack(fused))
    return consistency_loss(*rows)


def _fused(model: RelVLM, ids_L: Tensor, pixels_CHW: Tensor) -> Tensor:
    mask_1L = torch.ones_like(ids_L)[None]
    text = model.encode_text(ids_L[None], mask_1L)
    return model.fuse(text, mask_1L, model.encode_image(pixels_CHW[None]))[0, 0]


def test_it_is_in_the_values_and_in_the_sum(registered):
    step, batch = toy_pretraining(), five_groups("captions")
    total, values = step(batch)
    assert set(values) == {"itc", "itm", "mlm", "consistency", "itm_accuracy"}
    torch.testing.assert_close(values["consistency"], plainly(step, batch).detach())
    losses = [value for name, value in values.items() if name != "itm_accuracy"]
    torch.testing.assert_close(total.detach(), torch.stack(losses).sum())


def test_an_update_makes_it_smaller(registered, monkeypatch):
    monkeypatch.setitem(KINDS, "captions", replace(CAPTIONS, objectives=("itc", "consistency")))
    step, batch = toy_pretraining(), five_groups("captions")
    monkeypatch.setattr(step, "contrast", lambda *_: {})  # the new objective alone
    before = step(batch)
    before.total.backward()
    torch.optim.SGD(step.parameters(), 10).step()  # it is 2e-5, and its gradient small: less would be lost in rounding
    assert step(batch).values["consistency"] < before.values["consistency"]


def test_other_kinds_are_trained_without_it(registered):
    assert "consistency" not in toy_pretraining()(five_groups("vsg")).values


def test_chunks_share_it_by_their_groups(registered):
    step = toy_pretraining()
    chunks = [
        five_groups("captions"),
        made_batch(Workload("captions", 2, 1, 5, 8, masked=2), 32, 4, WORDS, 7),
    ]
    alone = [step(chunk).values["consistency"] for chunk in chunks]
    parts = [step(*pair).values["consistency"] for pair in zip(chunks, chunks_of(chunks), strict=True)]
    torch.testing.assert_close(sum(parts), (5 * alone[0] + 2 * alone[1]) / 7)


def test_it_is_a_column_of_the_metrics(registered):
    columns = logged(DataConfig(ratio=KindRatios(captions=1, vsg=1)))
    assert "captions/consistency" in columns and "vsg/consistency" not in columns


@pytest.mark.slow
def test_a_run_trains_and_logs_it(tiny, tmp_path):
    """In a process of its own, which runs this file."""
    _, config, *rest = tiny
    done = program(__file__, config, *rest, f"out={tmp_path}", "steps=3", "data.ratio={captions: 1}")
    assert done.returncode == 0, done.stderr[-3000:]
    with (tmp_path / "metrics.csv").open(newline="") as file:
        found = [float(row["captions/consistency"]) for row in csv.DictReader(file)]
    assert len(found) == 3 and all(0 < value < 2 for value in found)


if __name__ == "__main__":
    from relvlm.engine.loop import run

    register(lambda table, name, row: table.update({name: row}))
    run(load_config(Path(sys.argv[1]), sys.argv[2:]))
