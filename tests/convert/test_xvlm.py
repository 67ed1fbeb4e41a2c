"""X-VLM with its three vision encoders: the official model's outputs, losses, gradients and checkpoints."""

import json

import pytest
import torch
from support.closeness import assert_as_close_as

import relvlm
from relvlm.cli import main as command
from relvlm.convert import from_official, to_official
from relvlm.convert.official import back, check_shapes, convert
from relvlm.encoders.position import resize_bias_table, resize_positions
from relvlm.encoders.swin import relative_position_index, shift_mask
from relvlm.errors import UserError

NAMES = ["xvlm_small", "xvlm_vit_small", "xvlm_clipvit_small"]
every_vision = pytest.mark.parametrize("name", NAMES)


@every_vision
def test_every_output_loss_and_gradient_equals_the_official_one(name, too_far):
    assert too_far(name) == []


@every_vision
def test_fp32_is_at_most_twice_as_far_from_fp64_as_the_official_fp32(name, assert_fp32_is_as_good):
    assert_fp32_is_as_good(name)


@every_vision
def test_every_output_goes_the_plain_or_the_packed_way(name, compared):
    assert {e.route for e in compared(name, torch.float32)} == {"plain", "packed"}


@every_vision
def test_no_official_output_is_left_out_of_the_comparison(name, never_compared):
    assert never_compared(name) == []


@every_vision
def test_round_trip_is_byte_identical(name, vectors):
    official = vectors(name)
    model = from_official(official["state_dict"], official["config"], "xvlm")
    assert_identical(to_official(model, "xvlm"), official["state_dict"])


def test_full_size_round_trip(full_size, shared):
    tensors, config = full_size("xvlm")
    tensors |= buffers(tensors)
    converted = convert(tensors, config, "xvlm")
    model, ours = converted.config, converted.tensors
    check_shapes(model, ours, "xvlm")
    assert (model.image_size, model.vision.depths, model.vision.window) == (224, [2, 2, 18, 2], 7)
    assert (model.vision.heads, model.text.layers, model.fusion.layers) == ([4, 8, 16, 32], 6, 6)
    assert_identical(back(ours, model, "xvlm"), tensors)
    listed = json.loads((shared / "parity/xvlm_base_keys.json").read_text())
    assert sum(t.numel() for t in ours.values()) == listed["n_params"]


def test_a_swin_keeps_the_heads_of_each_stage(vectors):
    official = vectors("xvlm_small")
    table = "vision_encoder.layers.1.blocks.{}.attn.relative_position_bias_table"
    depth = len([name for name in official["state_dict"] if name in {table.format(i) for i in range(9)}])
    tensors = official["state_dict"] | {table.format(i): torch.randn(49, 1) for i in range(depth)}
    model = from_official(tensors, official["config"], "xvlm")
    stages = model.config.vision.heads
    assert stages[1] == 1 and stages != [stages[0] * 2**i for i in range(len(stages))]
    assert_identical(to_official(model, "xvlm"), tensors)


def buffers(tensors: dict) -> dict:
    """What the official model computes, in place of made-up contents."""
    found = {"text_encoder.bert.embeddings.position_ids": torch.arange(512)[None]}
    for name in tensors:
        stage = int(name.split(".")[2]) if ".blocks." in name else 0
        if name.endswith("relative_position_index"):
            found[name] = relative_position_index(7)
        elif name.endswith("attn_mask"):
            found[name] = shift_mask(56 // 2**stage, 7, 3)
    return found


def test_the_masks_and_indices_are_the_official_ones(vectors):
    tensors = vectors("xvlm_small")["state_dict"]
    block = "vision_encoder.layers.0.blocks.1"
    assert torch.equal(shift_mask(16, 4, 2), tensors[f"{block}.attn_mask"])
    assert torch.equal(relative_position_index(4), tensors[f"{block}.attn.relative_position_index"])


@every_vision
def test_missing_and_unknown_keys_are_one_error_that_lists_them(name, vectors):
    official = vectors(name)
    tensors = official["state_dict"] | {"itm_head.5.bias": torch.zeros(1)}
    del tensors["bbox_head.1.weight"]
    with pytest.raises(UserError, match=r"1 missing: bbox_head\.1\.weight; 1 unknown: itm_head\.5\.bias"):
        from_official(tensors, official["config"], "xvlm")


def test_a_mask_of_another_model_is_refused(vectors):
    official = vectors("xvlm_small")
    key = "vision_encoder.layers.0.blocks.1.attn_mask"
    with pytest.raises(UserError, match="attn_mask: is not what it is"):
        from_official(official["state_dict"] | {key: torch.zeros(16, 16, 16)}, official["config"], "xvlm")


def test_position_tables_are_interpolated_as_the_official_codes_do(shared):
    cases = torch.load(shared / "parity/pos_interp_cases.pt", weights_only=True)
    for case in cases["vit_pos_embed"]:
        assert_resized(resize_positions, case, case["dst_grid"])
    for case in cases["swin_relative_position_bias_table"]:
        assert_resized(resize_bias_table, case, case["dst_window"])


def assert_resized(resize, case: dict, size: int) -> None:
    """The official table is there in fp32 alone: that of the official code in fp64 is ours, if it is near."""
    found, truth = resize(case["input"], size), resize(case["input"].double(), size)
    assert_as_close_as(found, case["output"], truth)


@pytest.mark.parametrize(
    ("name", "vision", "grid"),
    [
        ("xvlm_small", {"image_res": 96, "window_size": 6}, (12, 12)),
        ("xvlm_vit_small", {"image_res": 96}, (6, 6)),
        ("xvlm_clipvit_small", {"image_res": 80}, (5, 5)),
    ],
)
def test_another_image_size_goes_forth_and_back(name, vision, grid, vectors):
    official = vectors(name)
    config = official["config"] | {"vision": official["config"]["vision"] | vision}
    model = from_official(official["state_dict"], config, "xvlm")
    size = vision["image_res"]
    assert model.vision.grid == grid
    assert model.encode_image(torch.randn(1, 3, size, size)).shape[1] == 1 + grid[0] * grid[1]
    again = from_official(to_official(model, "xvlm"), config, "xvlm")
    assert torch.equal(
        again.encode_image(torch.ones(1, 3, size, size)), model.encode_image(torch.ones(1, 3, size, size))
    )


@every_vision
def test_the_command_makes_a_checkpoint_that_loads_and_goes_back(name, vectors, shared, tmp_path, monkeypatch):
    official = vectors(name)
    folder, again = tmp_path / "ours", tmp_path / "again.pth"
    run(monkeypatch, "convert", "xvlm", str(shared / f"parity/{name}.pt"), str(folder))
    model = relvlm.load(folder)
    found = model.encode_image(official["inputs"]["image"]["images"])
    plain, truth = (official[run]["image"]["image_embeds"] for run in ("outputs", "outputs64"))
    assert_as_close_as(found, plain, truth)
    run(monkeypatch, "convert", "xvlm", str(folder), str(again))
    assert_identical(torch.load(again, weights_only=True)["model"], official["state_dict"])


def test_the_command_interpolates_on_request(shared, tmp_path, monkeypatch):
    folder = tmp_path / "ours"
    run(
        monkeypatch,
        "convert",
        "xvlm",
        str(shared / "parity/xvlm_clipvit_small.pt"),
        str(folder),
        "--image-size",
        "96",
    )
    assert relvlm.load(folder).encode_image(torch.randn(1, 3, 96, 96)).shape[1] == 37


def run(monkeypatch, *arguments: str) -> None:
    monkeypatch.setattr("sys.argv", ["relvlm", *arguments])
    try:
        command()
    except SystemExit as end:
        if end.code:
            raise


def assert_identical(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name
