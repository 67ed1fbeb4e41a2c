"""Logs beside metrics.csv: TensorBoard, and services that the config asks for (here made ones)."""

import sys
import time
from collections import defaultdict
from pathlib import Path
from types import ModuleType

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from relvlm.config.schema import Config
from relvlm.engine.columns import CLOCKS
from relvlm.engine.loggers import Board, Service, check_loggers
from relvlm.errors import UserError


def row(step: int, **others: object) -> dict[str, object]:
    known = {"step": step, "dataset": "coco", "samples_hash": "0f", "lr": 0.1 * step, "grad_norm": 1.5}
    known |= {"skipped": 0, "skipped_so_far": 0, "spike": 0}
    return known | dict.fromkeys(CLOCKS, float(step)) | {"mfu": None, "captions/itc": 2.0 * step} | others


class Made(ModuleType):
    """As much of wandb as is called; it writes down how."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls: dict[str, list] = defaultdict(list)

    def init(self, **options: object) -> None:
        self.calls["init"].append(options)

    def log(self, values: dict, step: int) -> None:
        self.calls["log"].append((step, values))

    def finish(self) -> None:
        self.calls["finish"].append(())


@pytest.fixture(params=["wandb", "trackio"])
def service(request, monkeypatch) -> Made:
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    made = Made(request.param)
    monkeypatch.setitem(sys.modules, request.param, made)
    return made


def test_the_board_has_losses_of_steps_and_means_of_the_rest(tmp_path):
    board = Board(tmp_path, 0)
    board.write([row(1), row(2), row(3)])
    board.close()
    found = EventAccumulator(str(tmp_path)).Reload()
    assert [(e.step, e.value) for e in found.Scalars("captions/itc")] == [(1, 2), (2, 4), (3, 6)]
    assert [(e.step, e.value) for e in found.Scalars("grad_norm")] == [(s, 1.5) for s in (1, 2, 3)]
    assert [(e.step, e.value) for e in found.Scalars("data_s")] == [(3, 2)]
    assert "mfu" not in found.Tags()["scalars"] and "samples_hash" not in found.Tags()["scalars"]


def test_a_resumed_board_keeps_the_steps_up_to_the_checkpoint(tmp_path):
    for start, steps in ((0, range(1, 7)), (5, range(6, 8))):
        board = Board(tmp_path, start)
        board.write([row(step) for step in steps])
        board.close()
        time.sleep(1.1)  # a file's name has its second; files of one second may be read in any order
    found = EventAccumulator(str(tmp_path), purge_orphaned_data=True).Reload()
    assert [event.step for event in found.Scalars("captions/itc")] == [1, 2, 3, 4, 5, 6, 7]


def test_a_service_is_told_the_config_and_each_step(service, tmp_path):
    made = Service(service.__name__, Config(name="ReX VLM", steps=7), tmp_path, 0)
    made.write([row(1), row(2)])
    made.close()
    ((begun,), logged) = service.calls["init"], service.calls["log"]
    assert begun["project"] == "relvlm" and begun["config"]["steps"] == 7 and begun["resume"] == "allow"
    assert [step for step, _ in logged] == [1, 2] and logged[1][1]["captions/itc"] == 4.0
    assert not {"step", "mfu"} & logged[0][1].keys() and logged[0][1]["samples_hash"] == "0f"
    assert len(service.calls["finish"]) == 1


def run_of(service: Made, folder: Path, start: int) -> str:
    Service(service.__name__, Config(name="mini"), folder, start)
    options = service.calls["init"][-1]
    return options["id"] if service.__name__ == "wandb" else options["name"]


def test_a_resumed_run_goes_on_in_its_own_run_and_a_new_one_has_another(service, tmp_path):
    first, resumed, anew = (run_of(service, tmp_path, start) for start in (0, 5, 0))
    assert first == resumed != anew and first.startswith("mini-")


def test_its_own_variables_hold(service, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_PROJECT", "ours")
    Service(service.__name__, Config(), tmp_path, 0)
    assert service.calls["init"][0]["project"] == "ours"


def test_one_that_is_not_installed_is_named(service):
    other = "trackio" if service.__name__ == "wandb" else "wandb"
    check_loggers([])
    check_loggers([service.__name__])
    with pytest.raises(UserError, match=rf"^loggers: {other} is not installed \(pip install {other}"):
        check_loggers([service.__name__, other])
