"""What counts as a weight of a checkpoint, and with which reason everything else is listed."""

from __future__ import annotations

import argparse
import collections
import datetime
import math
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from sparsight.analysis import Analysis, analyze

State = dict[str, Tensor]


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(math.prod(shape)))


def weights(found: Analysis) -> set[str]:
    return {t.name for t in found.tensors}


def why(found: Analysis) -> dict[str, str]:
    return {x.name: x.why for x in found.listed}


def everywhere(state: State, folder: Path) -> list[Analysis]:
    """The same from memory, from a safetensors file and from one of torch.save."""
    save_file({name: x.contiguous() for name, x in state.items()}, folder / "m.safetensors")
    torch.save(state, folder / "m.pt")
    return [analyze(state), analyze(folder / "m.safetensors"), analyze(folder / "m.pt")]


def check(state: State, right: set[str], folder: Path) -> Analysis:
    """Exactly these are analysed, all else is listed; returns what is said of the file of torch.save."""
    for found in (analyses := everywhere(state, folder)):
        assert weights(found) == right
        assert {*why(found)} == {*state} - right
        assert found.count == sum(state[name].numel() for name in right)
    return analyses[-1]


# -- by value --------------------------------------------------------------------------------------------------

LOWER = torch.tril(torch.ones(40, 40))
CAUSAL = {
    "lower": LOWER,
    "of four dimensions": LOWER.view(1, 1, 40, 40),
    "a window": LOWER - torch.tril(LOWER, -8),
    "what may not be seen": torch.triu(torch.ones(40, 40), 1),
    "strictly lower": torch.tril(torch.ones(40, 40), -1),
    "added, minus infinity": torch.triu(torch.full((40, 40), -math.inf), 1),
    "added, large": torch.triu(torch.full((1, 1, 40, 40), -1e4), 1),
    "of half precision": LOWER.half(),
    "of bfloat16": LOWER.bfloat16().view(1, 40, 40),
    "of bool": LOWER.bool(),
    "of bytes": LOWER.to(torch.uint8).view(1, 1, 40, 40),
    "transposed in memory": LOWER.t().contiguous().t(),
}


@pytest.mark.parametrize("kind", CAUSAL)
@pytest.mark.parametrize("name", ["h.0.attn.bias", "tril", "layers.3.weight"])
def test_causal_masks_are_told_by_their_values(kind: str, name: str, tmp_path: Path):
    found = check({name: CAUSAL[kind], "h.0.attn.c_attn.weight": normal(40, 120)}, {"h.0.attn.c_attn.weight"}, tmp_path)
    assert "causal mask" in why(found)[name]


SQUARE = {
    "weights": normal(40, 40),
    "an identity": torch.eye(40),
    "lower triangular weights": torch.tril(normal(40, 40)),
    "one value is off": LOWER.index_put((torch.tensor(20), torch.tensor(39)), torch.tensor(0.5)),
    "small ones": 0.5 * LOWER,
    "random ones": (normal(40, 40) > 0).float().fill_diagonal_(1),
    "all ones": torch.ones(40, 40),
}  # fmt: skip


@pytest.mark.parametrize("kind", SQUARE)
def test_other_square_matrices_are_weights(kind: str, tmp_path: Path):
    check({"fc.weight": SQUARE[kind]}, {"fc.weight"}, tmp_path)


def test_a_checkpoint_of_gpt_2(tmp_path: Path):
    block = {
        "attn.bias": LOWER.view(1, 1, 40, 40), "attn.masked_bias": torch.tensor(-1e4),
        "attn.c_attn.weight": normal(16, 48), "attn.c_attn.bias": normal(48), "attn.c_proj.weight": normal(16, 16),
        "ln_1.weight": torch.ones(16), "ln_1.bias": torch.zeros(16), "mlp.c_fc.weight": normal(16, 64),
    }  # fmt: skip
    state = {f"h.{i}.{name}": x.clone() for i in range(2) for name, x in block.items()}
    state |= {"wte.weight": normal(100, 16), "wpe.weight": normal(40, 16), "ln_f.weight": torch.ones(16)}
    right = {f"h.{i}.{leaf}.weight" for i in range(2) for leaf in ("attn.c_attn", "attn.c_proj", "mlp.c_fc")}
    found = why(check(state, right, tmp_path))
    assert "embedding" in found["wte.weight"]
    assert "embedding" in found["wpe.weight"]
    assert "buffer" in found["h.0.attn.masked_bias"]


# -- by partner: what is multiplied by a mask ------------------------------------------------------------------


def pruned(layer: nn.Module, *names: str, amount: float = 0.75) -> tuple[State, dict[str, Tensor]]:
    """The state of a layer that torch has pruned, and the products that it computes with."""
    for name in names:
        prune.l1_unstructured(layer, name, amount=amount)
    state = {f"0.{name}": x for name, x in layer.state_dict().items()}
    return state, {f"0.{name}": getattr(layer, name).detach() for name in names}


def channels_last(state: State, products: State) -> tuple[State, State]:
    return {n: x.to(memory_format=torch.channels_last) if x.ndim == 4 else x for n, x in state.items()}, products


PRUNED = {
    "linear": lambda: pruned(nn.Linear(12, 8), "weight", "bias"),
    "convolution": lambda: pruned(nn.Conv2d(3, 8, 3), "weight"),
    "recurrent": lambda: pruned(nn.LSTM(6, 5), "weight_hh_l0", "weight_ih_l0", "bias_hh_l0"),
    "attention": lambda: pruned(nn.MultiheadAttention(8, 2), "in_proj_weight"),
    "half precision": lambda: pruned(nn.Linear(12, 8).half(), "weight"),
    "bfloat16": lambda: pruned(nn.Linear(12, 8).bfloat16(), "weight"),
    "channels last": lambda: channels_last(*pruned(nn.Conv2d(3, 8, 3), "weight")),
}


@pytest.mark.parametrize("kind", PRUNED)
def test_a_weight_that_torch_has_pruned_is_the_product_with_its_mask(kind: str, tmp_path: Path):
    torch.manual_seed(0)
    state, right = PRUNED[kind]()
    plain = {name: x for name, x in state.items() if not name.endswith(("_orig", "_mask"))} | right
    expected = analyze({name: x.contiguous() for name, x in plain.items()}, eta=0.1, rows=True)
    for found in everywhere(state, tmp_path):
        assert weights(found) == weights(expected)
        masks = {n for n in why(found) if n.endswith("_mask")}
        assert masks == {n for n in state if n.endswith("_mask")}
        assert all("mask of" in why(found)[n] for n in masks)
        assert found.zeros == sum(int((x == 0).sum()) for x in right.values() if x.ndim > 1) > 0
    found = analyze(tmp_path / "m.pt", eta=0.1, rows=True)
    by_name = {t.name: t for t in found.tensors}
    for tensor in expected.tensors:
        mine = by_name[tensor.name]
        assert (mine.summary, mine.neurons, mine.rows) == (tensor.summary, tensor.neurons, tensor.rows)
        assert mine.aliases == (() if tensor.name not in right else (f"{tensor.name}_orig",))


def test_the_product_of_masks_of_any_type_at_any_threads(tmp_path: Path):
    x, keep = normal(700, 1501), normal(700, 1501).flip(0) > 0.5
    expected = analyze({"fc.weight": x * keep}, eta=0.1, exact=True).tensors[0]
    for dtype in (torch.bool, torch.uint8, torch.float32, torch.float64, torch.int64):
        save_file({"fc.weight_orig": x, "fc.weight_mask": keep.to(dtype)}, tmp_path / "m.safetensors")
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found = analyze(tmp_path / "m.safetensors", eta=0.1, exact=True, budget=32 << 20)
            assert found.tensors[0].summary == expected.summary
            assert found.tensors[0].neurons == expected.neurons
        torch.set_num_threads(1)
    halves = analyze({"fc.weight_orig": x, "fc.weight_mask": keep * 0.5}).tensors[0].summary
    assert halves.largest == float((x * keep * 0.5).abs().max())


def test_masks_beside_weights_and_in_parametrisations(tmp_path: Path):
    class Masked(nn.Module):
        def __init__(self, mask: Tensor) -> None:
            super().__init__()
            self.register_buffer("mask", mask)

        def forward(self, x: Tensor) -> Tensor:
            return x * self.mask

    layer = nn.Linear(9, 7)
    keep = normal(7, 9) > 0
    parametrize.register_parametrization(layer, "weight", Masked(keep))
    state = {f"a.{n}": x for n, x in layer.state_dict().items()}
    state |= {"b.weight": normal(5, 4), "b.mask": torch.ones(5, 4)}
    state |= {"c.weight": normal(5, 4), "c.weight_mask": torch.ones(5, 4)}
    for found in everywhere(state, tmp_path):
        assert weights(found) == {"a.weight", "b.weight", "c.weight"}
        assert found.zeros == int((~keep).sum())
        assert "mask of b.weight" in why(found)["b.mask"]


def test_masks_without_what_they_are_of(tmp_path: Path):
    state = {"fc.weight_mask": torch.ones(6, 5), "layers.0.attn_mask": normal(4, 9, 9), "mask": torch.ones(3, 4)}
    check({**state, "fc.weight": normal(6, 7)}, {"fc.weight"}, tmp_path)


def test_a_mask_of_another_shape_is_not_multiplied(tmp_path: Path):
    check({"fc.weight_orig": normal(6, 5), "fc.weight_mask": torch.ones(6)}, {"fc.weight_orig"}, tmp_path)


# -- by partner: parametrisations ------------------------------------------------------------------------------


def old_weight_norm(layer: nn.Module, **options: object) -> nn.Module:
    with pytest.warns(FutureWarning):
        return nn.utils.weight_norm(layer, **options)


V = "parametrizations.weight.original1"
PARAMETRISED = {
    "weight_norm": (lambda: parametrizations.weight_norm(nn.Linear(6, 5)), V),
    "of a convolution": (lambda: parametrizations.weight_norm(nn.Conv2d(3, 5, 3)), V),
    "of one number": (lambda: parametrizations.weight_norm(nn.Linear(6, 5), dim=None), V),
    "spectral_norm": (lambda: parametrizations.spectral_norm(nn.Linear(6, 5)), "parametrizations.weight.original"),
    "orthogonal": (lambda: parametrizations.orthogonal(nn.Linear(6, 6)), "parametrizations.weight.original"),
    "old weight_norm": (lambda: old_weight_norm(nn.Linear(6, 5)), "weight_v"),
    "old, of columns": (lambda: old_weight_norm(nn.Conv1d(4, 5, 3), dim=2), "weight_v"),
    "old, of one number": (lambda: old_weight_norm(nn.Linear(6, 5), dim=None), "weight_v"),
    "old spectral_norm": (lambda: nn.utils.spectral_norm(nn.Conv2d(3, 5, 3)), "weight_orig"),
}  # fmt: skip


@pytest.mark.parametrize("kind", PARAMETRISED)
def test_a_parametrised_weight_counts_once(kind: str, tmp_path: Path):
    make, name = PARAMETRISED[kind]
    torch.manual_seed(0)
    state = {f"conv.{n}": x for n, x in make().state_dict().items()}
    found = why(check(state, {f"conv.{name}"}, tmp_path))
    assert "bias" in found["conv.bias"]
    parts = {n for n in state if "parametrizations" in n or n.endswith("_g")} - {f"conv.{name}"}
    assert all("parametrisation" in found[n] or "weight_norm" in found[n] for n in parts)


# -- by partner: quantised -------------------------------------------------------------------------------------


def packed(*shape: int, dtype: torch.dtype = torch.int32) -> Tensor:
    return torch.randint(0, 100, shape, generator=torch.Generator().manual_seed(0)).to(dtype)


QUANTISED = {
    "fp8 by blocks": {"weight": normal(256, 384).to(torch.float8_e4m3fn), "weight_scale_inv": normal(2, 3)},
    "fp8 by rows": {
        "weight": normal(64, 32).to(torch.float8_e4m3fn), "weight_scale": normal(64, 1), "input_scale": normal(1)
    },
    "GPTQ": {
        "qweight": packed(8, 64), "qzeros": packed(4, 8), "scales": normal(4, 64).half(),
        "g_idx": packed(64), "bias": normal(64),
    },
    "AWQ": {"qweight": packed(64, 8), "qzeros": packed(4, 8), "scales": normal(4, 64).half()},
    "bitsandbytes": {
        "weight": packed(512, 1, dtype=torch.uint8), "weight.absmax": normal(16), "weight.quant_map": normal(16),
        "weight.quant_state.bitsandbytes__nf4": packed(90, dtype=torch.uint8), "weight.nested_absmax": normal(1),
    },
    "compressed-tensors": {
        "weight_packed": packed(64, 4), "weight_scale": normal(64, 2).bfloat16(), "weight_zero_point": packed(8, 2),
        "weight_shape": torch.tensor([64, 32]),
    },
    "int8 by rows": {"weight": packed(64, 32, dtype=torch.int8), "weight_scale": normal(64, 1), "bias": normal(64)},
    "another name": {"codes": packed(64, 32, dtype=torch.uint8), "levels": normal(64, 2)},
}  # fmt: skip


@pytest.mark.parametrize("kind", QUANTISED)
def test_scales_are_no_weights(kind: str, tmp_path: Path):
    state = {f"layers.0.q_proj.{name}": x for name, x in QUANTISED[kind].items()}
    found = why(check({**state, "lm_head.weight": normal(20, 64)}, {"lm_head.weight"}, tmp_path))
    scales = [name for name, x in state.items() if x.is_floating_point() and x.ndim > 1 and x.itemsize > 1]
    assert all("scale" in found[name] for name in scales)


def test_weights_beside_buffers_of_integers_are_weights(tmp_path: Path):
    state = {
        "attn.relative_position_index": packed(49, 49).long(), "attn.relative_position_bias_table": normal(169, 4),
        "attn.in_proj_weight": normal(96, 32), "attn.seen": packed(128, 128, dtype=torch.uint8),
        "attn.qkv.weight": normal(96, 32),
    }  # fmt: skip
    check(state, {"attn.in_proj_weight", "attn.qkv.weight"}, tmp_path)


# -- by shape and name -----------------------------------------------------------------------------------------


def test_biases_norms_and_positions_of_more_dimensions(tmp_path: Path):
    state = {
        "conv.bias": normal(1, 8, 1, 1), "style.noise_const": normal(1, 8, 1, 1),
        "mlp.experts.gate_up_proj_bias": normal(4, 6),
        "norm.weight": normal(1, 8, 1, 1), "out.gamma": normal(8, 1, 1), "blocks.0.1.weight": normal(8, 4),
        "blocks.0.1.bias": normal(8, 4), "logit_scale": normal(4, 1, 1), "attn.bias_k": normal(1, 1, 8),
        "pos_embed": normal(1, 50, 32), "cls_token": normal(1, 1, 32), "query_tokens": normal(1, 12, 32),
        "sam.pos_embed": normal(1, 7, 7, 32), "pos_encoder.pe": normal(60, 1, 32),
        "positional_embedding": normal(77, 32),
        "fc.weight": normal(8, 4), "one_out.weight": normal(1, 8), "one_in.weight": normal(8, 1),
        "depthwise.weight": normal(8, 1, 3, 3), "point.weight": normal(8, 1, 1, 1), "text_projection": normal(32, 16),
        "norm1.linear.weight": normal(48, 8), "bias_proj.weight": normal(6, 5),
    }  # fmt: skip
    right = {"fc.weight", "one_out.weight", "one_in.weight", "depthwise.weight", "point.weight", "text_projection",
             "norm1.linear.weight", "bias_proj.weight"}  # fmt: skip
    found = why(check(state, right, tmp_path))
    assert "bias" in found["conv.bias"]
    assert "normalisation" in found["norm.weight"]
    assert "normalisation" in found["blocks.0.1.weight"]
    assert "embedding" in found["pos_embed"]


def test_what_is_multiplied_under_the_name_of_an_embedding(tmp_path: Path):
    state = {
        "patch_embed.proj.weight": normal(32, 3, 4, 4),
        "vit.embeddings.patch_embeddings.projection.weight": normal(32, 3, 4, 4),
        "visual.patch_embed.proj.weight": normal(32, 3, 2, 4, 4), "to_patch_embedding.2.weight": normal(32, 48),
        "time_embed.0.weight": normal(32, 16), "time_embed.0.bias": normal(32),
        "pos_conv_embed.conv.weight": normal(32, 4, 9),
        "time_embedding.linear_1.weight": normal(32, 16), "embeddings.word_embeddings.weight": normal(90, 32),
        "embeddings.position_embeddings.weight": normal(20, 32), "pos_embed": normal(1, 50, 32),
        "label_emb.weight": normal(10, 32),
    }  # fmt: skip
    tables = {"embeddings.word_embeddings.weight", "embeddings.position_embeddings.weight", "label_emb.weight"}
    found = why(check(state, {*state} - tables - {"pos_embed", "time_embed.0.bias"}, tmp_path))
    assert all("embedding" in found[name] for name in (*tables, "pos_embed"))


def test_a_table_tied_to_a_projection_with_a_bias_is_an_embedding(tmp_path: Path):
    table = normal(90, 32)
    torch.save({"embed.weight": table, "decoder.weight": table, "decoder.bias": normal(90)}, tmp_path / "m.pt")
    assert "embedding" in why(analyze(tmp_path / "m.pt"))["embed.weight"]


# -- by structure: training checkpoints ------------------------------------------------------------------------


def trained(*shape: int, kind: type[torch.optim.Optimizer] = torch.optim.Adam) -> tuple[State, dict]:
    """The state of a linear layer, and of the optimiser that has made a step."""
    torch.manual_seed(sum(shape))
    net = nn.Linear(*shape)
    optimizer = kind(net.parameters(), lr=0.1, **({"momentum": 0.9} if kind is torch.optim.SGD else {}))
    net(torch.randn(4, shape[0])).square().sum().backward()
    optimizer.step()
    return net.state_dict(), optimizer.state_dict()


G, OPT_G = trained(16, 32)
D, OPT_D = trained(32, 3, kind=torch.optim.SGD)
AVERAGE = {name: x * 0.9 for name, x in G.items()}


def under(prefix: str, state: State) -> State:
    return {f"{prefix}{name}": x for name, x in state.items()}


AVERAGED = {"n_averaged": torch.tensor(3), **under("module.", AVERAGE)}
TRAINING = {
    "a GAN": ({"g": G, "d": D, "opt_g": OPT_G, "opt_d": OPT_D, "step": 3}, {"g.weight", "d.weight"}),
    "a GAN by its names": (
        {"generator": G, "discriminator": D, "g_optim": OPT_G, "d_optim": OPT_D},
        {"generator.weight", "discriminator.weight"},
    ),
    "Lightning": ({"state_dict": G, "optimizer_states": [OPT_G, OPT_D], "lr_schedulers": [], "epoch": 1}, {"weight"}),
    "fairseq": ({"model": G, "last_optimizer_state": OPT_G, "extra_state": {"epoch": 2}}, {"weight"}),
    "nested": (
        {"nets": {"a": G, "b": D}, "training": {"a": {"adam": OPT_G}, "b": [OPT_D]}},
        {"nets.a.weight", "nets.b.weight"},
    ),
    "any key": ({"model": G, "x": OPT_G}, {"weight"}),
    "by parameter": ({"model": G, "x": {"state": {"weight": OPT_G["state"][0]}, "param_groups": []}}, {"weight"}),
    "with a number": ({"state_dict": G, "best": torch.tensor(0.9), "optim": OPT_G}, {"weight"}),
    "EMA": ({"model": G, "model_ema": AVERAGE, "optimizer": OPT_G}, {"weight"}),
    "EMA inside": ({"model": G, "ema": {"decay": 0.99, "shadow": AVERAGE}}, {"weight"}),
    "EMA beside": ({"g": G, "g_ema": AVERAGE, "d": D}, {"g.weight", "d.weight"}),
    "EMA of one dictionary": ({**under("net.", G), **under("net_ema.", AVERAGE)}, {"net.weight"}),
    "a list of shadows": ({"model": G, "ema": {"shadow_params": [*AVERAGE.values()]}}, {"weight"}),
    "averaged model": ({"model": G, "averaged_model": AVERAGED}, {"weight"}),
    "counted": ({"model": G, "slow": AVERAGED}, {"weight"}),
    "params": ({"params": G, "params_ema": AVERAGE}, {"weight"}),
    "without dots": ({"state_dict": {**under("model.in.", G), **under("model_ema.in", AVERAGE)}}, {"model.in.weight"}),
    "data beside": ({"model": G, "replay": {"seen": torch.ones(90, 16)}, "critic": D}, {"weight", "critic.weight"}),
    "only an average": ({"ema": AVERAGE, "epoch": 3}, {"ema.weight"}),
    "an average of another shape": ({"model": G, "ema": D}, {"weight", "ema.weight"}),
}  # fmt: skip


def count(thing: object) -> int:
    if isinstance(thing, Tensor):
        return 1
    inner = thing.values() if isinstance(thing, dict) else thing if isinstance(thing, list) else ()
    return sum(map(count, inner))


@pytest.mark.parametrize("kind", TRAINING)
@pytest.mark.parametrize("zipped", [True, False])
def test_of_a_training_checkpoint_the_networks_are_analysed(kind: str, zipped: bool, tmp_path: Path):
    thing, right = TRAINING[kind]
    torch.save(thing, tmp_path / "100.ckpt", _use_new_zipfile_serialization=zipped)
    found = analyze(tmp_path / "100.ckpt")
    assert weights(found) == right
    assert len(found.tensors) + len(found.listed) == count(thing)
    moments = {name: x for name, x in why(found).items() if name.endswith(("exp_avg", "exp_avg_sq", "momentum_buffer"))}
    assert all("optimiser" in x for x in moments.values())
    averages = [x.why for x in found.listed if x.shape == (32, 16) and x.name not in moments]
    assert all("running average" in x for x in averages)


def test_a_hundred_averages_are_none(tmp_path: Path):
    """So many are layers; and each would be compared with all others."""
    layers = {f"ema{i}.weight": normal(4, 5) for i in range(101)}
    check({"fc.weight": normal(4, 5), **layers}, {"fc.weight", *layers}, tmp_path)


def test_moments_in_a_flat_file(tmp_path: Path):
    names = ("optimizer.state.0.exp_avg", "opt.0.momentum_buffer", "adam.exp_avg_sq.fc.weight", "optimizer.m.fc.weight")
    found = check({"fc.weight": normal(4, 5), **{name: normal(4, 5) for name in names}}, {"fc.weight"}, tmp_path)
    assert all("optimiser" in why(found)[name] for name in names)


def test_a_layer_that_averages_is_analysed(tmp_path: Path):
    state = {f"blocks.{i}.{layer}.weight": normal(8, 8) for i in range(2) for layer in ("swa", "attn", "avg_pool")}
    state |= {"avg_pool.weight": normal(8, 8), "head.weight": normal(8, 8)}
    check(state, {*state}, tmp_path)


# -- one odd value ---------------------------------------------------------------------------------------------

ODD = {
    "COO": lambda: torch.eye(6).to_sparse(),
    "CSR": lambda: torch.eye(6).to_sparse_csr(),
    "CSC": lambda: torch.eye(6).to_sparse_csc(),
    "BSR": lambda: torch.eye(6).to_sparse_bsr((2, 3)),
    "a sparse parameter": lambda: nn.Parameter(torch.eye(6).to_sparse_csr()),
    "quantised": lambda: torch.quantize_per_tensor(torch.randn(4, 4), 0.1, 0, torch.qint8),
    "quantised by channel": lambda: torch.quantize_per_channel(
        torch.randn(4, 4), torch.ones(4), torch.zeros(4), 0, torch.quint8
    ),
    "nested": lambda: torch.nested.nested_tensor([torch.randn(2, 3), torch.randn(3, 3)]),
    "complex": lambda: torch.randn(4, 4, dtype=torch.complex64),
    "a number": lambda: torch.tensor(3.0),
    "empty": lambda: torch.empty(0, 5),
    "float8": lambda: torch.randn(4, 4).to(torch.float8_e5m2),
    "bool": lambda: torch.ones(4, 4, dtype=torch.bool),
    "uint16": lambda: torch.ones(4, 4).to(torch.uint16),
    "meta": lambda: torch.empty(4, 4, device="meta"),
    "None": lambda: None,
    "bytes": lambda: b"extra",
    "text": lambda: "extra",
}


@pytest.mark.filterwarnings("ignore:.*prototype stage:UserWarning", "ignore:.*beta state:UserWarning")
@pytest.mark.filterwarnings("ignore:.*invariant:UserWarning", "ignore:.*uantiz.*:UserWarning")
@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("key", ["fc._extra_state", "adjacency"])
def test_one_odd_value_is_listed_with_its_reason(kind: str, key: str, tmp_path: Path):
    torch.save({"model": {"fc.weight": normal(8, 8), key: ODD[kind]()}, "epoch": 1}, tmp_path / "m.pt")
    found = analyze(tmp_path / "m.pt")
    assert weights(found) == {"fc.weight"}
    assert {*why(found)} == {key}
    assert found.tensors[0].summary == analyze({"fc.weight": normal(8, 8)}).tensors[0].summary
    words = {"COO": "sparse", "CSR": "sparse", "quantised": "quantised", "nested": "nested", "None": "not a tensor"}
    assert words.get(kind, "") in why(found)[key]


VALUES = {
    "a number of NumPy": np.float64(0.9),
    "an array of NumPy": np.ones((3, 4)),
    "words in an array": np.array(["a", "b"]),
    "arguments": argparse.Namespace(lr=0.1, betas=(0.9, 0.99), out=Path("runs")),
    "a namespace": types.SimpleNamespace(a=1),
    "a default dictionary": collections.defaultdict(list, a=[1]),
    "a path": Path("runs/1"),
    "a time": datetime.datetime(2024, 1, 2, 3, tzinfo=datetime.UTC),
    "a version": torch.__version__,
    "generators": {"numpy": np.random.get_state(), "torch": torch.get_rng_state()},  # noqa: NPY002
    "a built-in": [slice(1, 2), range(3), frozenset({1})],
}


@pytest.mark.parametrize("kind", VALUES)
def test_values_of_common_types_refuse_no_file(kind: str, tmp_path: Path):
    """They are not built: what stands for them does nothing."""
    network = {"fc.weight": normal(8, 8), "fc._extra_state": VALUES[kind]}
    for zipped in (True, False):
        thing = {"state_dict": network, "other": VALUES[kind]}
        torch.save(thing, tmp_path / "m.pt", _use_new_zipfile_serialization=zipped)
        found = analyze(tmp_path / "m.pt")
        assert weights(found) == {"fc.weight"}
        assert found.tensors[0].summary == analyze({"fc.weight": normal(8, 8)}).tensors[0].summary


def test_an_extra_state_of_tensors_is_listed(tmp_path: Path):
    state = {"fc.weight": normal(8, 8), "fc._extra_state": {"amax": normal(4), "step": 3, "recipe": "x"}}
    torch.save(state, tmp_path / "m.pt")
    found = analyze(tmp_path / "m.pt")
    assert weights(found) == {"fc.weight"}
    assert "fc._extra_state.amax" in why(found)
