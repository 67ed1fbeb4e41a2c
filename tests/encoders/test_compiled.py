"""Compiled layers: the losses and gradients of eager ones, and nothing compiled anew for another batch."""

import copy
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from support.batches import made_batch
from support.closeness import assert_as_close_as
from toys import LATE, TAUGHT, VIT, toy_model, toy_pretraining

from relvlm.config.schema import ModelConfig
from relvlm.config.vision import SwinConfig
from relvlm.data.batches.batch import Batch
from relvlm.encoders import compiled
from relvlm.encoders.compiled import check_compiler
from relvlm.errors import UserError
from relvlm.plan.workload import Workload
from relvlm.pretraining.negatives import Negatives
from relvlm.pretraining.step import Pretraining

SWIN = replace(
    VIT,
    vision=SwinConfig(width=16, heads=[2, 4], patch_size=4, depths=[3, 3], window=4, drop_path=0.2),
)


def batch_of(kind: str, images: int = 2, tokens: int = 5) -> Batch:
    """With lengths and a number of groups of its own for each number of images and mean of tokens."""
    works = {
        "captions": Workload("captions", 3 * images, 1, tokens, 16, masked=2),
        "entities": Workload("entities", images, 3, tokens, 12, masked=1, boxes=3),
        "mrc": Workload("mrc", images, 3, tokens, 12, relations=2),
    }
    return made_batch(works[kind], 32, 4, 50, 7, seed=images)


KINDS = ["captions", "entities", "mrc"]


@pytest.fixture(autouse=True)
def nothing_compiled_yet() -> Iterator[None]:
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch.compiler.reset()


def outcomes(config: ModelConfig, device: str, dtype: torch.dtype = torch.float32) -> dict[str, tuple[dict, dict]]:
    """Losses and gradients for a batch of each kind, with the same negatives."""
    step, found = toy_pretraining(config, dtype=dtype).to(device), {}
    for kind in KINDS:
        step.zero_grad()
        batch = batch_of(kind)
        groups = torch.arange(batch.groups, device=device)
        negatives = None if kind == "mrc" else Negatives.given(groups.roll(1), groups.roll(-1))
        total, values = step(batch.to(device), negatives=negatives)
        total.backward()
        found[kind] = values, {name: p.grad for name, p in step.named_parameters()}
    return found


@pytest.mark.slow
@pytest.mark.parametrize("recompute", [False, True], ids=["", "recompute"])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_losses_and_gradients_are_those_of_eager_layers(device: str, recompute: bool) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    found = outcomes(replace(VIT, compile=True, recompute=recompute), device)
    eager, truth = outcomes(VIT, device), outcomes(VIT, "cpu", torch.float64)
    for kind in KINDS:
        assert_as_close_as(found[kind], eager[kind], truth[kind])


@pytest.mark.slow
def test_other_lengths_and_group_counts_compile_nothing_anew() -> None:
    recompiles_nothing(toy_pretraining(replace(VIT, compile=True)))


@pytest.mark.slow
@pytest.mark.parametrize("config", [SWIN, LATE, TAUGHT], ids=["swin", "late vision", "momentum"])
def test_nor_in_other_models(config: ModelConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """With dropout, and without the C++ of it, which takes long."""
    monkeypatch.setattr(compiled, "_compiled", lambda forward: torch.compile(forward, dynamic=True, backend="eager"))
    dropping = replace(config.text, dropout=0.1)
    recompiles_nothing(toy_pretraining(replace(config, text=dropping, compile=True)))


def recompiles_nothing(step: Pretraining) -> None:
    for kind in KINDS:
        step(batch_of(kind)).total.backward()
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    with torch.compiler.set_stance("fail_on_recompile"):
        for images, tokens in ((3, 6), (4, 4), (5, 7)):
            for kind in KINDS:
                step(batch_of(kind, images, tokens)).total.backward()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs > 0


def test_a_copy_runs_with_its_own_weights_and_names_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_compiled", lambda forward: torch.compile(forward, backend="eager"))
    model = toy_pretraining(replace(VIT, compile=True)).eval().model
    assert model.state_dict().keys() == toy_model().state_dict().keys()
    other, pixels = copy.deepcopy(model), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        model.vision.backbone.blocks[0].norm1.weight.zero_()
        assert not torch.allclose(other.encode_image(pixels), model.encode_image(pixels))


@pytest.mark.parametrize(
    ("platform", "named", "wanted"),
    [("linux", "", "g++"), ("darwin", "", "clang++"), ("linux", "icpx", "icpx"), ("darwin", "icpx", "icpx")],
)
def test_the_compiler_is_the_platforms_or_the_one_named(platform, named, wanted, monkeypatch) -> None:
    """As inductor chooses it."""
    monkeypatch.setattr(compiled.sys, "platform", platform)
    monkeypatch.setenv("CXX", named)
    looked_for: list[str] = []
    monkeypatch.setattr(compiled.shutil, "which", lambda name: looked_for.append(name) or f"/usr/bin/{name}")
    check_compiler()
    assert looked_for == [wanted]


def test_without_a_compiler_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match=r"model\.compile: .*no-such-compiler.*model\.compile=false"):
        check_compiler()
