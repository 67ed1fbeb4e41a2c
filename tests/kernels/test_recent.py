"""What was made from tensors is found again for these very tensors, unchanged, and for the same key alone."""

import torch

from relvlm_kernels.recent import SIZE, Recent


def getter():
    """(get, what was made) of a `Recent` whose values are numbered."""
    recent, made = Recent(), []
    return lambda key, *x: recent.get(key, x, lambda: made.append(key) or len(made)), made


def test_the_same_tensors_give_the_same_value():
    get, made = getter()
    a, b = torch.zeros(2), torch.ones(2)
    assert [get("key", a, b) for _ in range(3)] == [1, 1, 1] and made == ["key"]


def test_another_key_or_equal_tensors_are_made_anew():
    get, _ = getter()
    a, b = torch.zeros(2), torch.ones(2)
    assert [get(0, a, b), get(1, a, b), get(0, b, a), get(0, a.clone(), b), get(0, a, b)] == [1, 2, 3, 4, 1]


def test_a_tensor_that_was_written_to_is_another():
    get, _ = getter()
    a, b = torch.zeros(2), torch.ones(2)
    assert get(0, a, b) == 1
    b[0] = 5
    assert get(0, a, b) == get(0, a, b) == 2
    b.view(-1).add_(1)
    assert get(0, a, b) == 3


def test_tensors_of_inference_mode_are_made_anew():
    get, _ = getter()
    with torch.inference_mode():
        a = torch.zeros(2)
        assert [get(0, a), get(0, a)] == [1, 2]
    assert get(0, a) == 3


def test_few_are_kept_the_oldest_goes_first():
    get, made = getter()
    tensors = [torch.zeros(1) for _ in range(SIZE + 1)]
    for i, x in enumerate(tensors):
        get(i, x)
    get(SIZE, tensors[SIZE])
    get(1, tensors[1])
    assert made == list(range(SIZE + 1))
    get(0, tensors[0])
    assert made[-1] == 0 and len(made) == SIZE + 2
