"""open_clip's training pipeline on one tar, driven by loader.py: a count of images on each line of stdin is answered by
the CPU seconds that it took. Run by an interpreter that has open_clip."""

from __future__ import annotations

import sys
import time
from types import SimpleNamespace


def main() -> None:
    """Load as many images as asked, again and again."""
    import torch
    from open_clip import get_tokenizer, image_transform
    from open_clip_train.data import get_wds_dataset

    torch.set_num_threads(1)
    tar, size, batch = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    args = SimpleNamespace(
        train_data=tar, val_data=None, dataset_resampled=True, train_data_upsampling_factors=None,
        train_num_samples=10**9, val_num_samples=0, seed=0, world_size=1, workers=0, batch_size=batch,
        distributed=False,
    )  # fmt: skip
    transform = image_transform(size, is_train=True, aug_cfg={"scale": (0.5, 1.0)})
    data = get_wds_dataset(args, transform, is_train=True, tokenizer=get_tokenizer("ViT-B-16"))
    batches = iter(data.dataloader)
    next(batches)
    for line in sys.stdin:
        wanted, began = int(line), time.process_time()
        while wanted > 0:
            wanted -= len(next(batches)[0])
        print(time.process_time() - began, flush=True)


if __name__ == "__main__":
    main()
