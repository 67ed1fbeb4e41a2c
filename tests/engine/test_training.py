"""`relvlm train` as a user runs it: to the end, killed and resumed, on two processes, and on bad input."""

import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

import relvlm
from relvlm.checkpoints import saved, step_of
from relvlm.engine.columns import CLOCKS, PHASES
from relvlm.pretrained import latest

ROOT = Path(__file__).resolve().parents[2]
TRAIN = [sys.executable, "-m", "relvlm.cli", "train"]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}

pytestmark = pytest.mark.slow


def train(*arguments: str, check: bool = True) -> subprocess.CompletedProcess:
    done = subprocess.run([*TRAIN, *arguments], capture_output=True, text=True, env=ENVIRONMENT, cwd=ROOT)
    assert not check or done.returncode == 0, done.stderr[-3000:]
    return done


def losses(out: Path) -> list[dict[str, str]]:
    with (out / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k not in CLOCKS} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def unbroken(tiny, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("unbroken") / "run"
    train(*tiny, f"out={out}")
    return out


def test_a_run_leaves_losses_config_and_a_loadable_model(unbroken):
    rows = losses(unbroken)
    assert [int(row["step"]) for row in rows] == list(range(1, 41))
    kinds = {name.split("/")[0] for row in rows for name, value in row.items() if value and "/" in name}
    assert {"vsg"} < kinds
    assert yaml.safe_load((unbroken / "config.yaml").read_text())["steps"] == 40
    assert list((unbroken / "tensorboard").iterdir())
    model = relvlm.load(unbroken)
    assert model.step == 40 and not model.training and "left of" in model.relation_names


@pytest.mark.parametrize(
    ("name", "left_out"),
    [("albef", {"box_head", "mrc_head"}), ("xvlm", {"mrc_head"}), ("realbef", {"box_head"})],
)
def test_the_other_three_models_train_from_their_configs(name, left_out, tiny, tmp_path):
    _, _, *overrides = tiny
    config = ["--config", f"configs/mini/{name}.yaml", *overrides]
    train(*config, f"out={tmp_path / 'run'}", "steps=4", "data.batch={captions: 8, entities: 8, mrc: 8, vsg: 8}")
    model = relvlm.load(tmp_path / "run")
    assert {head for head in ("box_head", "mrc_head") if getattr(model, head) is None} == left_out
    assert (tmp_path / "run/checkpoints/step_0000004/teacher.pt").exists() == (name == "albef")


def test_where_a_steps_time_goes_comes_to_the_step(unbroken):
    """Within the digits that are written; what each step must do has taken time."""
    with (unbroken / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        seconds = {phase: float(row[f"{phase}_s"]) for phase in PHASES}
        assert sum(seconds.values()) == pytest.approx(float(row["step_s"]), rel=1e-4)
        assert all(seconds[phase] > 0 for phase in ("data", "forward", "backward", "optimizer", "logging"))
        assert all(float(row[name]) > 0 for name in ("grad_norm", "mfu", "memory_gb", "samples_per_s", "tokens_per_s"))
    assert [row["step"] for row in rows if float(row["saving_s"])] == [str(step) for step in range(6, 41, 5)]


def test_joint_steps_log_every_objective_of_every_kind(tiny, relworld, tmp_path):
    joint = [f"data.joint=[{{path: {relworld / 'graphs'}, block: 2}}]", "data.batch.joint=8"]
    train(*tiny, *joint, f"out={tmp_path}", "data.ratio={joint: 1}", "data.joint_weights={mrc: 2}", "steps=3")
    (first, *_), kinds = losses(tmp_path), {"captions", "entities", "mrc", "vsg"}
    logged = {name for name, value in first.items() if value and name.startswith("joint/")}
    assert {name.split("/")[1] for name in logged} == kinds
    assert {"joint/entities/bbox", "joint/mrc/mrc_accuracy", "joint/vsg/itm"} < logged


def test_killed_with_sigkill_and_started_again_it_ends_with_the_same_losses(tiny, unbroken, tmp_path):
    out = tmp_path / "run"
    command = [*TRAIN, *tiny, f"out={out}"]
    process = subprocess.Popen(command, env=ENVIRONMENT, cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 120
    while latest(out / "checkpoints") is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert process.poll() is None, "it ended before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert latest(out / "checkpoints") != out / "checkpoints/step_0000040"
    train(*tiny, f"out={out}")
    assert losses(out) == losses(unbroken)


def test_a_resumed_run_takes_what_it_is_told_to_accept_and_nothing_else(tiny, unbroken, tmp_path):
    out, expected = tmp_path / "moved", losses(unbroken)
    shutil.copytree(unbroken, out)
    shutil.rmtree(out / "checkpoints/step_0000040")
    slower = [*tiny, f"out={out}", "optim.lr=1e-3", "data.workers=1"]
    done = train(*slower, check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "optim.lr: 0.002 there, 0.001 here" in done.stderr and "data.workers" not in done.stderr
    done = train(*slower, "resume.accept=[optim.lr]")
    for each in ("optim.lr: 0.002 there, 0.001 here", "data.workers: 0 there, 1 here", f"out: '{unbroken}' there"):
        assert each in done.stderr
    found = losses(out)
    assert found[:35] == expected[:35] and len(found) == 40
    for row, before in zip(found[35:], expected[35:], strict=True):
        assert float(row["lr"]) == pytest.approx(float(before["lr"]) / 2, rel=1e-4)


def test_a_second_run_in_a_folder_is_refused_and_the_next_one_goes_on(tiny, tmp_path):
    command = [*tiny, f"out={tmp_path}", "checkpoint.every=1000000"]
    long = [*TRAIN, *command, "steps=1000000"]
    first = subprocess.Popen(long, env=ENVIRONMENT, cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / "metrics.csv").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        second = train(*command, "steps=2", check=False)
        assert second.returncode == 2 and second.stderr.count("\n") == second.stderr.count("overruled") + 1
        assert f"error: out: {tmp_path} is in use by a run on" in second.stderr and f"pid {first.pid}" in second.stderr
        assert first.poll() is None
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    third = train(*command, "steps=2")
    assert f"taken over from a run on {socket.gethostname()}: pid {first.pid}" in third.stderr
    assert [row["step"] for row in losses(tmp_path)] == ["1", "2"]


DROPPING = "model.vision.patch_keep=0.5"
SMALL_FIRST = "low_resolution={steps: 4, image_size: 16}"


@pytest.mark.parametrize(("option", "steps"), [(DROPPING, [2]), (SMALL_FIRST, [2, 4])], ids=["patches", "size"])
def test_options_that_are_not_exact_train_resume_exactly_and_say_so(option, steps, tiny, unbroken, tmp_path):
    """From the middle of the low-resolution phase, and from its end."""
    short = [*tiny, option, "steps=8", "checkpoint={every: 2, keep: 0}"]
    done = train(*short, f"out={tmp_path / 'run'}")
    assert f"trained with {option.split('=')[0]}" in done.stderr and "(not exact)" in done.stderr
    expected = losses(tmp_path / "run")
    assert expected != losses(unbroken)[:8] and len(expected) == 8
    for step in steps:
        again = tmp_path / f"from_{step}"
        shutil.copytree(tmp_path / "run", again)
        for later in (path for path in saved(again / "checkpoints") if step_of(path) > step):
            shutil.rmtree(later)
        train(*short, f"out={again}")
        assert losses(again) == expected
    model = relvlm.load(tmp_path / "run")
    assert model.encode_image(torch.zeros(1, 3, 32, 32)).shape[1] == 1 + 16


@pytest.mark.parametrize("name", ["rex_vlm", "albef"])  # the latter with a momentum teacher
def test_a_run_in_chunks_goes_on_from_a_checkpoint_as_if_unbroken(name, tiny, tmp_path):
    out = tmp_path / "run"
    command = ["--config", f"configs/mini/{name}.yaml", *tiny[2:], f"out={out}", "accumulate=2"]
    command += ["steps=8", "checkpoint.every=4", "model.text.dropout=0.1"]
    train(*command)
    rows, model = losses(out), (out / "checkpoints/step_0000008/model.safetensors").read_bytes()
    shutil.rmtree(out / "checkpoints/step_0000008")
    train(*command)
    assert losses(out) == rows
    assert (out / "checkpoints/step_0000008/model.safetensors").read_bytes() == model


def test_two_processes_with_the_deepspeed_launcher(tiny, unbroken, tmp_path):
    out = tmp_path / "run"
    launcher = [str(Path(sys.executable).with_name("deepspeed")), "--num_accelerators", "2"]
    script = ["--master_port", str(free_port()), "relvlm/train.py", "--deepspeed"]
    script += ["--deepspeed_config", "configs/deepspeed/zero1.json", *tiny, f"out={out}", "steps=4"]
    done = subprocess.run(launcher + script, capture_output=True, text=True, env=ENVIRONMENT | path_of_venv(), cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    alone, both = losses(unbroken)[:4], losses(out)
    assert [row["samples_hash"] for row in both] == [row["samples_hash"] for row in alone]
    assert len({row["samples_hash"] for row in both}) == 4
    states = sorted(path.name for path in latest(out / "checkpoints").glob("state_*"))
    assert states == ["state_00000.safetensors", "state_00001.safetensors"]


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_every_zero_stage_gives_the_losses_of_stage_1(stage, tiny, unbroken, tmp_path):
    settings = json.loads((ROOT / f"configs/deepspeed/zero{stage}.json").read_text())
    if stage == 3:  # small tensors are sharded too, as large models' are
        settings["zero_optimization"]["stage3_param_persistence_threshold"] = 0
    config = tmp_path / "deepspeed.json"
    config.write_text(json.dumps(settings))
    often = ["checkpoint.every=40", "log_every=40"]
    train(*tiny, "--deepspeed_config", str(config), f"out={tmp_path / 'run'}", *often)
    for found, expected in zip(losses(tmp_path / "run"), losses(unbroken), strict=True):
        assert float(found["grad_norm"]) == pytest.approx(float(expected["grad_norm"]), rel=1e-2)
        for name in (n for n, value in expected.items() if value and "/" in n and "accuracy" not in n):
            assert float(found[name]) == pytest.approx(float(expected[name]), rel=1e-3), (
                name,
                expected["step"],
            )


def test_compiled_layers_give_the_losses_of_eager_ones(tiny, unbroken, tmp_path):
    train(*tiny, f"out={tmp_path / 'run'}", "model.compile=true", "steps=2")
    for found, expected in zip(losses(tmp_path / "run"), losses(unbroken)[:2], strict=True):
        for name in (n for n, value in expected.items() if value and "/" in n):
            assert float(found[name]) == pytest.approx(float(expected[name]), rel=1e-3), name
    block = relvlm.load(tmp_path / "run").vision.backbone.blocks[0]
    assert "forward" not in vars(block)  # a model that scores is not compiled


def test_bad_input_is_one_clear_error_before_any_work(tiny, unbroken, relworld, tmp_path):
    def refused(*arguments: str) -> str:
        done = train(*tiny, f"out={tmp_path / 'none'}", *arguments, check=False)
        assert done.returncode == 2 and "Traceback" not in done.stderr
        assert not (tmp_path / "none").exists()
        return done.stderr

    assert "model.vison: unknown key (did you mean 'vision'?)" in refused("model.vison.width=3")
    gone = refused(f"data.graphs=[{{path: {tmp_path / 'gone'}}}]")
    assert "data.graphs[0].path" in gone and "relvlm data build" in gone
    torn = tmp_path / "torn"
    shutil.copytree(relworld / "captions", torn)
    shard = torn / "000000.tar"
    shard.write_bytes(shard.read_bytes()[:-1000])
    assert str(shard) in refused(f"data.captions=[{{path: {torn}}}]")
    settings = ["--deepspeed_config", "configs/deepspeed/zero3.json"]
    assert "model.compile: needs whole parameters" in refused(*settings, "model.compile=true")
    other = refused(f"out={unbroken}", "model.embed_dim=16")
    assert "another model" in other and "embed_dim: 32 there, 16 here" in other
    assert "gradient_clipping" in refused("--deepspeed_config", str(clipping(tmp_path)))


def clipping(folder: Path) -> Path:
    path = folder / "deepspeed.json"
    path.write_text('{"zero_optimization": {"stage": 1}, "gradient_clipping": 2.0}')
    return path


def path_of_venv() -> dict[str, str]:
    return {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
