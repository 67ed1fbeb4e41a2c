"""Made views of each kind, and batches of them: as unequal as real ones."""

from itertools import pairwise

import numpy as np

from relvlm.data.batches.batch import Batch, Group, View, assemble
from relvlm.data.batches.regions import Region, whole_region

WEIGHTS = {"captions": 0.5, "entities": 1.0, "vsg": 2.0, "mrc": 1.0}
IMAGES = 7


def made_views(kind: str, images: int = IMAGES) -> list[View]:
    """Of unequal numbers of groups, words, masks and triplets; some texts are in several of them."""
    rng = np.random.default_rng(0)

    def group(region: Region, masks: int) -> Group:
        key = int(rng.integers(40))
        ids = [2, *np.random.default_rng(key).integers(5, 50, 2 + key % 4).tolist()]
        places = list(range(1, 1 + masks))
        masked = [4 if place in places else word for place, word in enumerate(ids)]
        return Group(ids, key, region, masked, places, [ids[place] for place in places])

    def part() -> Region:
        x, y = rng.integers(0, 3, 2).tolist()
        return Region((x, y, x + 2, y + 1), (0.3 + 0.1 * x, 0.3 + 0.1 * y, 0.5, 0.25))

    whole = whole_region(32, 8)
    views = []
    for image in range(images):
        groups = {
            "captions": [group(whole, 1 + image % 2)],
            "entities": [*(group(part(), 1) for _ in range(1 + image % 3)), group(whole, 2)],
            "vsg": [group(whole, 1)],
            "mrc": [group(part(), 0) for _ in range(2 + image % 2)],
        }
        triplets = [(0, 1, image % 7), (1, 0, 3)][: 1 + image % 2]
        pixels = rng.integers(0, 255, (32, 32, 3)).astype(np.uint8)
        own = groups if kind == "joint" else {kind: groups[kind]}
        views.append(View(pixels, image, own, triplets if kind in ("mrc", "joint") else []))
    return views


def batch_of(kind: str, views: list[View]) -> Batch:
    return assemble(kind, "made", views, (4, 4), WEIGHTS if kind == "joint" else None)


def chunks_of(kind: str, count: int, views: list[View] | None = None) -> list[Batch]:
    views = made_views(kind) if views is None else views
    edges = [len(views) * i // count for i in range(count + 1)]
    return [batch_of(kind, views[a:b]) for a, b in pairwise(edges)]
