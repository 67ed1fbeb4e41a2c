"""What every backend must equal, worked out by hand."""

import torch
from support.attention_cases import small_qkv, small_regions

from relvlm_kernels import naive, region_attention


def test_region_attention_is_attention_to_the_keys_that_a_group_sees():
    """Worked out by hand for the group with prefix, the lower two rows of image 0, and their mean."""
    q, k, v = (x.detach() for x in small_qkv())
    seen = [torch.cat([x[0, :1], x[0, 5:13], x[0, 5:13].mean(0, keepdim=True)]) for x in (k, v)]
    weights = torch.einsum("qhd,shd->hqs", q[6:10], seen[0]).mul(8**-0.5).softmax(-1)
    wanted = torch.einsum("hqs,shd->qhd", weights, seen[1])
    regions = small_regions()
    regions.box[4] = torch.tensor([0, 1, 4, 3])
    for op in (region_attention, naive.region_attention):
        torch.testing.assert_close(op(q, k, v, regions)[6:10], wanted)
