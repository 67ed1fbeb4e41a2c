"""What is computed together: an image's pairs, by length."""

from itertools import pairwise

import torch

from relvlm.evals.scoring.packs import batches, order_of_pairs, text_chunks


def test_pairs_of_an_image_stay_together_and_rise_in_length() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 7, (60,), generator=generator)
    length = torch.randint(3, 20, (60,), generator=generator)
    order = order_of_pairs(image, length)
    assert sorted(order.tolist()) == list(range(60))
    images, lengths = image[order].tolist(), length[order].tolist()
    assert sum(a != b for a, b in pairwise(images)) == len(set(images)) - 1
    pairs = zip(images, lengths, images[1:], lengths[1:], strict=False)
    assert all(before <= after for a, before, b, after in pairs if a == b)


def test_images_with_long_texts_come_last() -> None:
    image, length = torch.tensor([0, 0, 1, 2]), torch.tensor([9, 9, 3, 5])
    assert image[order_of_pairs(image, length)].tolist() == [1, 2, 0, 0]


def test_one_pair_longer_than_the_budget_is_a_batch_of_its_own() -> None:
    parts = batches(torch.arange(3), torch.zeros(3, dtype=torch.long), torch.tensor([5, 50, 5]), 20, 8)
    assert [part.tolist() for part in parts] == [[0], [1], [2]]


def test_texts_of_a_length_are_encoded_together() -> None:
    texts = ["a" * size for size in (100, 5, 90, 10)]
    assert [[len(t) for t in chunk] for chunk in text_chunks(texts, 24)] == [[5, 10], [90], [100]]
