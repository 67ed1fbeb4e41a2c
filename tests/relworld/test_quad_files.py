"""COLA, ColorSwap and VisMin files of the world: each caption true of its own image alone."""

import json
from pathlib import Path

import pytest
from support.worlds import FEWEST, holds

from relvlm.evals.tasks import cola, colorswap, vismin
from relvlm.relworld.bank import Bank
from relvlm.relworld.config import WorldConfig
from relvlm.relworld.language import vocabulary
from relvlm.relworld.quad_files import CATEGORIES, write_cola, write_colorswap, write_vismin

WRITERS = {"cola": (write_cola, cola), "colorswap": (write_colorswap, colorswap), "vismin": (write_vismin, vismin)}


@pytest.mark.parametrize("name", WRITERS)
def test_each_caption_is_true_of_its_own_image_alone(config: WorldConfig, tmp_path: Path, name: str) -> None:
    write, module = WRITERS[name]
    bank = Bank(config, 0)
    write(bank, tmp_path / name)
    examples = module.load(tmp_path / name).examples
    assert len(examples) >= FEWEST and len(bank.scenes) == 2 * len(examples)
    for example in examples:
        for pair in example:
            scene = bank.scenes[int(pair.image.removesuffix(".jpg"))]
            own = pair.row["label"][-4] == pair.row["label"][-1]  # c0_i0, c1_i1
            assert holds(config, scene, _definite(pair.text)) is own


def _definite(text: str) -> str:
    """A caption with indefinite articles as one that `holds` reads."""
    if text.startswith("The "):
        return text
    words = text.rstrip(".").split()
    return " ".join("the" if word.lower() in ("a", "an") else word for word in words) + "."


def test_colours_are_exchanged_and_words_stay(tmp_path: Path, config: WorldConfig) -> None:
    bank = Bank(config, 0)
    write_colorswap(bank, tmp_path / "colorswap")
    for row in json.loads((tmp_path / "colorswap/test.json").read_text()):
        first, second = (row[f"caption_{i}"].lower().split() for i in (1, 2))
        assert sorted(first) == sorted(second) and first != second


def test_vismin_shows_about_half_of_its_captions_crossed(tmp_path: Path, config: WorldConfig) -> None:
    write_vismin(Bank(config, 0), tmp_path / "vismin")
    lines = (tmp_path / "vismin/sim_solution.csv").read_text().splitlines()[1:]
    crossed = sum(line.split(",")[1].startswith("T1_I0 > T0_I0") for line in lines)
    assert 0 < crossed < len(lines)
    assert {line.split(",")[3] for line in lines} == set(CATEGORIES)


@pytest.mark.parametrize("name", WRITERS)
def test_every_word_is_in_the_vocabulary(folder: Path, name: str) -> None:
    known = set(vocabulary())
    for pair in WRITERS[name][1].load(folder / name).pairs:
        assert set(pair.text.lower().rstrip(".").split()) <= known
