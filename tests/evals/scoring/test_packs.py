"""What is computed together: an image's pairs, by length."""

from itertools import pairwise

import pytest
import torch

from relvlm.evals.scoring.packs import batches, chunks, order_of_pairs, text_chunks


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


def test_images_are_ordered_by_the_mean_length_however_many_pairs_they_have() -> None:
    image, length = torch.tensor([0, 1, 1]), torch.tensor([6, 4, 4])
    assert image[order_of_pairs(image, length)].tolist() == [1, 1, 0]
    assert order_of_pairs(image[:0], length[:0]).tolist() == []


@pytest.mark.parametrize(("budget", "parts"), [(10, [[0, 1], [2]]), (9, [[0], [1], [2]]), (15, [[0, 1, 2]])])
def test_a_batch_is_filled_up_to_its_budget(budget: int, parts: list[list[int]]) -> None:
    found = batches(torch.arange(3), torch.zeros(3, dtype=torch.long), torch.tensor([5, 5, 5]), budget, 8)
    assert [part.tolist() for part in found] == parts


@pytest.mark.parametrize(("images", "parts"), [(1, [[0, 1], [2]]), (2, [[0, 1, 2]])])
def test_a_batch_holds_so_many_images(images: int, parts: list[list[int]]) -> None:
    found = batches(torch.arange(3), torch.tensor([0, 0, 1]), torch.tensor([5, 5, 5]), 99, images)
    assert [part.tolist() for part in found] == parts


def test_one_pair_longer_than_the_budget_is_a_batch_of_its_own() -> None:
    parts = batches(torch.arange(3), torch.zeros(3, dtype=torch.long), torch.tensor([5, 50, 5]), 20, 8)
    assert [part.tolist() for part in parts] == [[0], [1], [2]]


def test_texts_of_a_length_are_encoded_together() -> None:
    texts = ["a" * size for size in (100, 5, 90, 10)]
    assert [[len(t) for t in chunk] for chunk in text_chunks(texts, 24)] == [[5, 10], [90], [100]]


@pytest.mark.parametrize(("budget", "sizes"), [(6, [[5, 5]]), (5, [[5], [5]])])
def test_a_text_is_guessed_to_have_a_token_for_5_letters_and_two_more(budget: int, sizes: list[list[int]]) -> None:
    assert [[len(t) for t in chunk] for chunk in text_chunks(["a" * 5] * 2, budget)] == sizes


def test_chunks_hold_everything_once() -> None:
    assert [list(chunk) for chunk in chunks(range(5), 2)] == [[0, 1], [2, 3], [4]]
