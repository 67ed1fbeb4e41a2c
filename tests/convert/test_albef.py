"""ALBEF: the official model's outputs, losses, gradients and checkpoints."""

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import relvlm
from relvlm.cli import main as command
from relvlm.convert import from_official, teacher_from_official, to_official
from relvlm.convert.official import back, check_shapes, convert
from relvlm.errors import UserError
from relvlm.pretrained import read_teacher

NAME = "albef_small"


@pytest.fixture(scope="module")
def official(vectors):
    return vectors(NAME)


def test_every_output_loss_and_gradient_equals_the_official_one(too_far):
    assert too_far(NAME) == []


def test_fp32_is_at_most_twice_as_far_from_fp64_as_the_official_fp32(assert_fp32_is_as_good):
    assert_fp32_is_as_good(NAME)


def test_every_output_goes_the_plain_or_the_packed_way(compared):
    assert {e.route for e in compared(NAME, torch.float32)} == {"plain", "packed"}


def test_no_official_output_is_left_out_of_the_comparison(never_compared):
    assert never_compared(NAME) == []


def test_round_trip_is_byte_identical_with_momentum_copies_and_queues(official):
    model = from_official(official["state_dict"], official["config"], "albef")
    state = teacher_from_official(official["state_dict"], official["config"], "albef")
    assert_identical(to_official(model, "albef", state), official["state_dict"])


def test_full_size_round_trip(full_size):
    tensors, config = full_size("albef")
    for name in (n for n in tensors if n.endswith("position_ids")):
        tensors[name] = torch.arange(512)[None]
    converted = convert(tensors, config, "albef")
    model, ours = converted.config, converted.tensors
    check_shapes(model, ours, "albef")
    assert (model.image_size, model.vision.layers, model.text.layers, model.fusion.layers) == (256, 12, 6, 6)
    assert (model.vision.heads, model.text.heads, model.momentum.queue) == (12, 12, 65536)
    assert_identical(back(ours, model, "albef"), tensors)


def test_missing_and_unknown_keys_are_one_error_that_lists_them(official):
    tensors = dict(official["state_dict"])
    del tensors["vision_proj_m.bias"]
    tensors |= {"itm_head.more": torch.zeros(1), "prefix.itm_head.bias": torch.zeros(1)}
    message = r"1 missing: vision_proj_m\.bias; 2 unknown: itm_head\.more, prefix\.itm_head\.bias"
    with pytest.raises(UserError, match=message):
        from_official(tensors, official["config"], "albef")


def test_tied_tensors_that_differ_are_refused(official):
    name = "text_encoder.cls.predictions.decoder.weight"
    tensors = official["state_dict"] | {name: official["state_dict"][name] + 1}
    with pytest.raises(UserError, match=r"decoder\.weight: are tied"):
        from_official(tensors, official["config"], "albef")


def test_another_activation_or_eps_is_refused(official):
    config = official["config"]
    with pytest.raises(UserError, match=r"vision\.ln_eps: 1e-05"):
        from_official(official["state_dict"], config | {"vision": config["vision"] | {"ln_eps": 1e-5}}, "albef")


def test_positions_are_interpolated_for_another_image_size(official, vectors):
    model = from_official(
        official["state_dict"],
        official["config"] | {"vision": official["config"]["vision"] | {"image_res": 96}},
        "albef",
    )
    assert model.vision.grid == (6, 6) and model.encode_image(torch.randn(1, 3, 96, 96)).shape[1] == 37
    assert torch.equal(model.vision.backbone.class_token, official["state_dict"]["visual_encoder.cls_token"])


def test_more_padding_and_less_of_it_change_nothing(official):
    model = from_official(official["state_dict"], official["config"], "albef").double()
    ids, mask = official["inputs"]["input_ids"], official["inputs"]["attention_mask"]
    image = model.encode_image(official["inputs"]["images"])
    fused = model.fuse(model.encode_text(ids, mask), mask, image)
    longer = [torch.cat([x, x.new_zeros(len(x), 5)], dim=1) for x in (ids, mask)]
    padded = model.fuse(model.encode_text(*longer), longer[1], image)
    torch.testing.assert_close(padded[:, : ids.shape[1]], fused)
    assert not padded[:, ids.shape[1] :].any()


def test_the_command_makes_a_checkpoint_that_loads_and_goes_back(official, tmp_path, shared, monkeypatch):
    vocab = tmp_path / "vocab.txt"
    vocab.write_text("".join((shared / "data/bert_vocab/vocab.txt").read_text().splitlines(True)[:104]))
    with vocab.open("a") as file:
        file.writelines(f"word{i}\n" for i in range(96))
    source, folder, again = tmp_path / "in.pth", tmp_path / "ours", tmp_path / "again.pth"
    half = {k: t.half() if t.is_floating_point() else t for k, t in official["state_dict"].items()}
    torch.save({"model": half, "epoch": 29, "config": official["config"]}, source)
    run(monkeypatch, "convert", "albef", str(source), str(folder), "--vocab", str(vocab))
    model = relvlm.load(folder)
    assert model.tokenizer.vocab_size == 200 and model.sep is False and model.step == 0
    assert torch.equal(read_teacher(folder)["pointer"], official["state_dict"]["queue_ptr"])
    run(monkeypatch, "convert", "albef", "--back", str(folder), str(again))
    assert_identical(torch.load(again, weights_only=True)["model"], half)


def test_the_command_goes_back_without_relations_on_request(official, shared, tmp_path, monkeypatch, capsys):
    folder, again = tmp_path / "ours", tmp_path / "again.pth"
    run(monkeypatch, "convert", "albef", str(shared / "parity/albef_small.pt"), str(folder))
    tensors = load_file(folder / "model.safetensors") | {"mrc_head.second.bias": torch.zeros(3)}
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(SystemExit, match="2"):
        run(monkeypatch, "convert", "albef", str(folder), str(again))
    assert "1 unknown: mrc_head.second.bias" in capsys.readouterr().err
    run(monkeypatch, "convert", "albef", str(folder), str(again), "--drop", "mrc_head")
    assert_identical(torch.load(again, weights_only=True)["model"], official["state_dict"])


@pytest.mark.parametrize(
    ("back", "words", "message"),
    [
        (True, ["--image-size", "384"], "--image-size: has no effect on the way back"),
        (True, ["--vocab", "vocab.txt"], "--vocab: has no effect on the way back"),
        (True, ["--config", "config.yaml"], "--config: has no effect on the way back"),
        (True, ["--drop", "mrc_hed"], "--drop: .* has no part 'mrc_hed' .*mrc_head"),
        (False, ["--drop", "mrc_head"], "--drop: has no effect but with --back"),
        (False, ["--image-size", "-16"], "--image-size: '-16' is no whole number above 0"),
    ],
)
def test_the_command_refuses_options_that_would_do_nothing(back, words, message, shared, tmp_path, monkeypatch, capsys):
    source, folder = str(shared / "parity/albef_small.pt"), tmp_path / "ours"
    if back:
        run(monkeypatch, "convert", "albef", source, str(folder))
        save_file(
            load_file(folder / "model.safetensors") | {"mrc_head.second.bias": torch.zeros(3)},
            folder / "model.safetensors",
        )
    with pytest.raises(SystemExit, match="2"):
        run(monkeypatch, "convert", "albef", str(folder) if back else source, str(tmp_path / "new"), *words)
    assert re.search(message, capsys.readouterr().err) and not (tmp_path / "new").exists()


def test_the_command_does_not_write_over_anything(shared, tmp_path, monkeypatch, capsys):
    source, target = shared / "parity/albef_small.pt", tmp_path / "ours"
    target.mkdir()
    run(monkeypatch, "convert", "albef", str(source), str(target))  # an empty folder will do
    with pytest.raises(SystemExit, match="2"):
        run(monkeypatch, "convert", "albef", str(source), str(target))
    assert "already there" in capsys.readouterr().err


def test_the_command_refuses_a_file_with_other_objects(tmp_path, monkeypatch, capsys):
    source = tmp_path / "in.pth"
    torch.save({"model": {}, "path": Path("x")}, source)
    with pytest.raises(SystemExit, match="2"):
        run(monkeypatch, "convert", "albef", str(source), str(tmp_path / "out"))
    assert "in.pth: holds a pathlib.PosixPath, which is not read" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


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
