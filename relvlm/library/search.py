"""The photos that a text is true of: the nearest by features, re-scored by the matching head (ALBEF's retrieval)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from relvlm.errors import UserError
from relvlm.evals.scoring.scorer import Scorer
from relvlm.library.index import Index
from relvlm.library.photo_files import photos_of
from relvlm.library.score import check_texts, matrix, whole_text_scorer
from relvlm.model import RelVLM

BEST = 12
CANDIDATES = 64


@dataclass(frozen=True)
class Hit:
    """`match`: probability that the text is true of the photo; `cosine`: of their features."""

    path: Path
    match: float
    cosine: float


@dataclass(frozen=True)
class Found:
    """`hits`, the best first, among `photos`; `faults`: what is wrong with those that were left out."""

    hits: tuple[Hit, ...]
    photos: int
    faults: dict[Path, str]


def search(
    model: RelVLM,
    folder: str | Path,
    text: str,
    best: int = BEST,
    candidates: int | None = None,
    index: str | Path | None = None,
) -> list[Hit]:
    """The `best` photos of a folder, the best first.

    `candidates` of the nearest are re-scored (64, or `best` where that is more). `index`: a .npz that keeps the photos'
    features for the next search.
    """
    scorer = whole_text_scorer(model)
    kept = Index(scorer.model, Path(index) if index is not None else None)
    candidates = max(CANDIDATES, best) if candidates is None else candidates
    return list(search_photos(scorer, kept, photos_of([Path(folder)]), text, best, candidates).hits)


def search_photos(scorer: Scorer, index: Index, photos: Sequence[Path], text: str, best: int, candidates: int) -> Found:
    """The same with an index that is at hand; UserError where no photo can be read."""
    check_texts(scorer, [text])
    faults: dict[Path, str] = {}
    sound, features_BE = index.features(scorer, photos, faults)
    if not sound:
        path, fault = next(iter(faults.items()))
        raise UserError(f"{path}: {fault} (none of {len(photos)} photos can be read)")
    cosine_B = (features_BE @ scorer.text_features([text]).T)[:, 0]
    nearest = cosine_B.topk(min(candidates, len(sound))).indices.tolist()
    matches = matrix(scorer, [sound[i] for i in nearest], [text])[:, 0].tolist()
    hits = [Hit(sound[i], match, cosine_B[i].item()) for i, match in zip(nearest, matches, strict=True)]
    hits.sort(key=lambda hit: -hit.match)
    return Found(tuple(hits[:best]), len(sound), faults)
