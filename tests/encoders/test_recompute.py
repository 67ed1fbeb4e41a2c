"""Recomputed layers: which they are, the same values and gradients with the same dropout, each input alone kept."""

from dataclasses import replace

import torch
from toys import NOISY, SWIN, toy_model

from relvlm.encoders.recompute import recompute_layers, transformer_layers


def test_the_layers_are_those_of_all_encoders():
    model = toy_model()
    named = [type(layer).__name__ for layer in transformer_layers(model.vision, model.text, model.fusion)]
    assert named == ["Block", "Block", "TextLayer", "TextLayer", "FusionLayer", "FusionLayer"]
    assert [type(layer).__name__ for layer in transformer_layers(toy_model(SWIN).vision)] == ["SwinBlock"] * 2


def test_values_and_gradients_are_those_with_the_same_dropout():
    config = replace(NOISY, text=replace(NOISY.text, dropout=0.5))
    ids, cu, found = torch.arange(5, 17), torch.tensor([0, 5, 12], dtype=torch.int32), []
    for recompute in (False, True):
        text = toy_model(config).text.double()
        if recompute:
            recompute_layers(text)
        torch.manual_seed(1)
        rows = text(ids, cu)
        rows.square().sum().backward()
        found.append([rows, *(p.grad for p in text.parameters())])
    torch.testing.assert_close(*found)


def test_a_layer_runs_again_in_the_backward_pass():
    text, runs = toy_model().text, []
    text.layers[0].attention.register_forward_hook(lambda *_: runs.append(1))
    recompute_layers(text)
    rows = text(torch.arange(5, 9), torch.tensor([0, 4], dtype=torch.int32))
    assert len(runs) == 1
    rows.sum().backward()
    assert len(runs) == 2
