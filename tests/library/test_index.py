"""Photos are known by content; a file keeps what is known."""

from pathlib import Path

import numpy as np
import pytest
import torch

from relvlm.errors import UserError
from relvlm.evals.scoring.scorer import Scorer
from relvlm.library.index import Index
from relvlm.library.score import whole_text_scorer
from relvlm.model import RelVLM


class Counting:
    """A scorer that says how many photos it was asked to encode."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer, self.encoded = scorer, 0
        self.faults = scorer.faults

    def image_features(self, paths: list[Path]) -> torch.Tensor:
        self.encoded += len(paths)
        return self.scorer.image_features(paths)


@pytest.fixture()
def scorer(model: RelVLM) -> Counting:
    return Counting(whole_text_scorer(model))


def test_features_are_those_of_the_scorer_in_order(scorer: Counting, photos: list[Path]) -> None:
    index, faults = Index("m"), {}
    backwards = photos[::-1]
    known, features_BE = index.features(scorer, backwards, faults)
    assert known == backwards and not faults
    torch.testing.assert_close(features_BE, scorer.scorer.image_features(backwards))


def test_what_is_kept_is_not_encoded_again_wherever_it_lies(
    scorer: Counting, photos: list[Path], tmp_path: Path
) -> None:
    path = tmp_path / "new/index.npz"
    _, before = Index("m", path).features(scorer, photos, {})
    assert scorer.encoded == 6
    moved = [photo.rename(tmp_path / f"moved_{photo.name}") for photo in photos]
    _, after = Index("m", path).features(scorer, moved, {})
    assert scorer.encoded == 6 and torch.equal(before, after)
    moved[0].write_bytes(moved[1].read_bytes())  # a photo that is known
    _, changed = Index("m", path).features(scorer, moved, {})
    assert scorer.encoded == 6 and torch.equal(changed[0], after[1])


def test_a_changed_photo_is_encoded_and_others_stay_known(scorer: Counting, photos: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "index.npz"
    Index("m", path).features(scorer, photos[:5], {})
    Index("m", path).features(scorer, photos[5:], {})
    assert scorer.encoded == 6
    Index("m", path).features(scorer, photos, {})
    assert scorer.encoded == 6
    assert [file.name for file in tmp_path.glob("*.npz*")] == ["index.npz"] and not list(tmp_path.glob(".*"))


def test_photos_that_cannot_be_read_are_left_out_with_the_reason(
    scorer: Counting, photos: list[Path], tmp_path: Path
) -> None:
    photos[1].write_bytes(b"no image")
    photos[2].unlink()
    faults: dict[Path, str] = {}
    known, features_BE = Index("m", tmp_path / "index.npz").features(scorer, photos, faults)
    assert known == [photos[0], *photos[3:]] and len(features_BE) == 4
    assert "not a readable image" in faults[photos[1]] and "No such file" in faults[photos[2]]


def test_an_index_of_another_model_is_refused(scorer: Counting, photos: list[Path], tmp_path: Path) -> None:
    Index("m", tmp_path / "index.npz").features(scorer, photos, {})
    with pytest.raises(UserError, match=r"index\.npz: of another model's features"):
        Index("n", tmp_path / "index.npz")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"text", None])
def test_another_file_is_refused(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "index.npz"
    np.savez(path, other=1) if content is None else path.write_bytes(content)
    with pytest.raises(UserError, match="no index of relvlm search"):
        Index("m", path)
