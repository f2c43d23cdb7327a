"""Multiplications against numbers worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from sparsight.deploy.ledger.macs import macs


def cleared(layer, *index):
    with torch.no_grad():
        layer.weight[index] = 0
    return layer


def network() -> nn.Sequential:
    """3 × 5 × 5 images: 25 · 4 · 27 = 2,700 products, then 100 · 10; three of four channels and half the rows are 0."""
    conv, linear = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(100, 10)
    return nn.Sequential(cleared(conv, slice(3)), nn.ReLU(), nn.Flatten(), cleared(linear, slice(5))).eval()


@pytest.mark.parametrize(
    ("module", "shape", "dense", "effective"),
    [
        (network(), (1, 3, 5, 5), 3700, 675 + 500),
        (network(), (4, 3, 5, 5), 4 * 3700, 4 * 1175),
        (cleared(nn.Conv2d(4, 6, 3, groups=2), 0), (1, 4, 5, 5), 9 * 6 * 18, 9 * 5 * 18),
        (cleared(nn.ConvTranspose2d(2, 3, 2, stride=2), 0), (1, 2, 4, 4), 16 * 2 * 12, 16 * 12),
        (cleared(nn.Conv1d(2, 3, 3), 0), (1, 2, 8), 6 * 18, 6 * 12),
        (nn.Linear(6, 4), (3, 5, 6), 15 * 24, 15 * 24),
        (cleared(nn.Linear(6, 4, bias=False), ...), (2, 6), 48, 0),
        (nn.ReLU(), (2, 6), 0, 0),
    ],
    ids=["network", "batch", "groups", "transposed", "one dimension", "dense", "all zero", "no weights"],
)
def test_layers_count_by_their_density(module, shape, dense, effective):
    assert macs(module.eval(), (torch.randn(shape),)) == (dense, effective)


def test_attention_counts_each_projection_by_its_own_part_and_products_of_activations_in_full():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    dense = 5 * (3 * 64 + 64 + 2 * 128) + 2 * 5 * 5 * 8
    assert macs(layer, (torch.randn(1, 5, 8),)) == (dense, dense)
    with torch.no_grad():
        layer.self_attn.in_proj_weight[:8] = 0
        layer.linear2.weight[:, :4] = 0
    assert macs(layer, (torch.randn(1, 5, 8),)) == (dense, dense - 5 * 64 - 5 * 32)


def test_weights_that_are_computed_keep_their_zeros():
    normed = parametrizations.weight_norm(nn.Linear(6, 4)).eval()
    with torch.no_grad():
        normed.parametrizations.weight.original1[:, :3] = 0
    assert macs(normed, (torch.randn(2, 6),)) == (48, 24)
    masked = nn.Linear(6, 4).eval()
    prune.l1_unstructured(masked, "weight", 18)
    assert macs(masked, (torch.randn(2, 6),)) == (48, 12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_lstm_counts_each_step(dtype):
    lstm = nn.LSTM(4, 5, num_layers=2, bidirectional=True, batch_first=True).to(dtype).eval()
    dense = 2 * 6 * 2 * (20 * 4 + 20 * 5 + 20 * 10 + 20 * 5)
    x = torch.randn(2, 6, 4, dtype=dtype)
    assert macs(lstm, (x,)) == (dense, dense)
    with torch.no_grad():
        lstm.weight_ih_l0[:3] = 0
        lstm.weight_hh_l1_reverse[:7] = 0
    assert macs(lstm, (x,)) == (dense, dense - 2 * 6 * (3 * 4 + 7 * 5))


def test_zeros_in_activations_save_nothing():
    assert macs(nn.Linear(6, 4).eval(), (torch.zeros(2, 6),)) == (48, 48)


def test_a_layer_that_is_called_twice_counts_twice():
    layer = cleared(nn.Linear(6, 6), slice(3))
    assert macs(nn.Sequential(layer, layer).eval(), (torch.randn(2, 6),)) == (144, 72)


def test_a_model_that_fails_is_told_and_nothing_is_left_behind():
    before = torch.backends.mha.get_fastpath_enabled()
    with pytest.raises(ValueError, match="the model fails on the example: mat1 and mat2"):
        macs(nn.Linear(6, 4), (torch.zeros(2, 5),))
    assert torch.backends.mha.get_fastpath_enabled() == before
