"""What is refused: index tensors that point elsewhere, alike in every backend, and where they are looked at."""

import pytest
import torch

from relvlm_kernels import Regions, box_mean, checks, mrc_pool, region_attention, varlen_attention

GOOD = {"offsets": [0, 1, 2, 3], "image": [0, 1, 1], "box": [[0, 0, 2, 2]] * 3}
BAD = [
    ("offsets", [0, 2, 1, 3], "region_attention: offsets must rise"),
    ("offsets", [0, 1, 2, 4], "region_attention: offsets must rise"),
    ("offsets", [-1, 1, 2, 3], "region_attention: offsets must rise"),
    ("image", [0, 1, 2], "region_attention: a group's image is not there"),
    ("image", [0, -1, 1], "region_attention: a group's image is not there"),
    ("box", [[0, 0, 2, 2], [0, 0, 3, 1], [0, 0, 1, 1]], "region_attention: a group's box is empty or leaves"),
    ("box", [[0, 0, 2, 2], [0, 0, 1, 3], [0, 0, 1, 1]], "region_attention: a group's box is empty or leaves"),
    (
        "box",
        [[0, 0, 2, 2], [-1, 0, 1, 1], [0, 0, 1, 1]],
        "region_attention: a group's box is empty or leaves",
    ),
    ("box", [[0, 0, 2, 2], [1, 0, 1, 1], [0, 0, 1, 1]], "region_attention: a group's box is empty or leaves"),
]


def regions(**changed):
    tensors = {name: torch.tensor(x).int() for name, x in (GOOD | changed).items()}
    return Regions(**tensors, prefix=torch.ones(3).bool(), mean=torch.ones(3).bool(), grid=(2, 2))


@pytest.mark.parametrize(("field", "value", "message"), BAD)
def test_groups_that_point_elsewhere_are_refused(every_backend, field, value, message):
    q, k = torch.randn(3, 1, 16), torch.randn(2, 5, 1, 16)
    region_attention(q, k, k, regions())
    with pytest.raises(ValueError, match=message):
        region_attention(q, k, k, regions(**{field: value}))


@pytest.mark.parametrize("cu", [[0, 2, 1, 3], [0, 4], [-1, 3]])
def test_sequences_that_point_elsewhere_are_refused(every_backend, cu):
    q, good, bad = (
        torch.randn(3, 1, 16),
        torch.tensor([0] * (len(cu) - 1) + [3]).int(),
        torch.tensor(cu).int(),
    )
    varlen_attention(q, q, q, good, good)
    for pair in ((bad, good), (good, bad)):
        with pytest.raises(ValueError, match="varlen_attention: offsets must rise"):
            varlen_attention(q, q, q, *pair)


@pytest.mark.parametrize(("field", "value", "message"), [row for row in BAD if row[0] != "offsets"])
def test_boxes_that_point_elsewhere_are_refused(every_backend, field, value, message):
    x, good, bad = torch.randn(2, 5, 8), regions(), regions(**{field: value})
    box_mean(x, good.box, good.image, good.grid)
    with pytest.raises(ValueError, match=message.replace("region_attention", "box_mean")):
        box_mean(x, bad.box, bad.image, bad.grid)


def test_triplets_of_no_rows_are_refused(every_backend):
    h, weight, rows = torch.randn(2, 32), torch.randn(3, 64), torch.tensor([0, 1])
    mrc_pool(h, rows, rows, weight, weight[:, 0])
    for bad in (rows - 1, rows + 1):
        with pytest.raises(ValueError, match="mrc_pool: a triplet's row is no row of h"):
            mrc_pool(h, rows, bad, weight, weight[:, 0])


def test_a_gpu_is_waited_for_where_that_is_asked_for(monkeypatch):
    gpu = torch.device("cuda")
    monkeypatch.delenv("RELVLM_CHECK", raising=False)
    assert checks.wanted(torch.device("cpu")) and not checks.wanted(gpu)
    monkeypatch.setenv("RELVLM_CHECK", "1")
    assert checks.wanted(gpu)


def test_shapes_that_disagree_are_named():
    q, k = torch.randn(3, 1, 16), torch.randn(2, 5, 1, 16)
    with pytest.raises(ValueError, match=r"expected \(T, H, D\)"):
        region_attention(q[..., :8], k, k, regions())
    with pytest.raises(ValueError, match="3 keys are fewer than the grid's 4 patches"):
        region_attention(q, k[:, :3], k[:, :3], regions())
