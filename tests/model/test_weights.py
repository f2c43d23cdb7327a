"""Which parameters are weights, with what layout: against what zeroing one does to the network's outputs."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune

from sparsight import apply_, dense, find_collapse, held, left_out, verify
from sparsight.model.masks import all_kept, counts
from sparsight.model.weights import laid_out, weights
from sparsight.pruning.allocate.fixed import Global
from sparsight.pruning.score.magnitude import Magnitude
from sparsight.pruning.score.mbp import MBP
from sparsight.pruning.score.snip import SNIP
from sparsight.types import Layout, Scored


class Conv1D(nn.Module):
    """A stand-in for transformers' linear layer, which has its weight the other way round."""

    def __init__(self, nf: int, nx: int) -> None:
        super().__init__()
        self.nf, self.nx = nf, nx
        self.weight = nn.Parameter(torch.randn(nx, nf))
        self.bias = nn.Parameter(torch.zeros(nf))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x.reshape(-1, self.nx), self.weight).view(*x.shape[:-1], self.nf)


class NoName(Conv1D):
    """As it is found in transformers itself, whatever it has for attributes."""

    def __init__(self, nf: int, nx: int) -> None:
        super().__init__(nf, nx)
        del self.nf, self.nx

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


NoName.__name__, NoName.__module__ = "Conv1D", "transformers.pytorch_utils"


class Experts(nn.Module):
    """Two of them behind each other for every sample, as [experts, outputs, inputs] or the other way round."""

    def __init__(self, swapped: bool, hidden: int = 4, inner: int = 3) -> None:
        super().__init__()
        up, down = (2 * inner, hidden), (hidden, inner)
        self.swapped = swapped
        self.gate_up_proj = nn.Parameter(torch.randn(2, *(up[::-1] if swapped else up)))
        self.down_proj = nn.Parameter(torch.randn(2, *(down[::-1] if swapped else down)))

    def forward(self, x: Tensor) -> Tensor:
        out = torch.zeros_like(x)
        for up, down in zip(self.gate_up_proj, self.down_proj, strict=True):
            up, down = (up.T, down.T) if self.swapped else (up, down)
            gate, rest = F.linear(x, up).chunk(2, -1)
            out = out + F.linear(F.silu(gate) * rest, down)
        return out


def attention(**widths) -> nn.Module:
    return nn.MultiheadAttention(4, 2, **widths)


LAYERS: dict[str, tuple[Callable[[], nn.Module], dict[str, tuple[int, int, int]]]] = {
    # kind: (a module, of each weight the number of outputs, of inputs in all, and of groups)
    "linear": (lambda: nn.Linear(4, 6), {"weight": (6, 4, 1)}),
    "conv1d": (lambda: nn.Conv1d(4, 6, 3), {"weight": (6, 4, 1)}),
    "grouped": (lambda: nn.Conv2d(4, 6, 3, groups=2), {"weight": (6, 4, 2)}),
    "depthwise": (lambda: nn.Conv2d(4, 8, 3, groups=4), {"weight": (8, 4, 4)}),
    "conv3d": (lambda: nn.Conv3d(4, 6, 2), {"weight": (6, 4, 1)}),
    "transposed 1d": (lambda: nn.ConvTranspose1d(4, 6, 3), {"weight": (6, 4, 1)}),
    "transposed 2d": (lambda: nn.ConvTranspose2d(4, 6, 2, stride=2), {"weight": (6, 4, 1)}),
    "transposed 3d": (lambda: nn.ConvTranspose3d(4, 6, 2), {"weight": (6, 4, 1)}),
    "transposed grouped": (lambda: nn.ConvTranspose2d(4, 6, 3, groups=2), {"weight": (6, 4, 2)}),
    "transposed depthwise": (lambda: nn.ConvTranspose2d(4, 4, 3, groups=4), {"weight": (4, 4, 4)}),
    "gpt-2": (lambda: Conv1D(6, 4), {"weight": (6, 4, 1)}),
    "gpt-2 by its module": (lambda: NoName(6, 4), {"weight": (6, 4, 1)}),
    "attention": (attention, {"in_proj_weight": (12, 4, 1), "out_proj.weight": (4, 4, 1)}),
    "attention of other widths": (
        lambda: attention(kdim=3, vdim=5),
        {
            "q_proj_weight": (4, 4, 1), "k_proj_weight": (4, 3, 1), "v_proj_weight": (4, 5, 1),
            "out_proj.weight": (4, 4, 1),
        },
    ),
    "experts": (lambda: Experts(False), {"gate_up_proj": (12, 8, 2), "down_proj": (8, 6, 2)}),
    "experts swapped": (lambda: Experts(True), {"gate_up_proj": (12, 8, 2), "down_proj": (8, 6, 2)}),
    "spectral norm": (
        lambda: parametrizations.spectral_norm(nn.ConvTranspose2d(4, 6, 2)),
        {"parametrizations.weight.original": (6, 4, 1)},
    ),
    "weight norm": (
        lambda: parametrizations.weight_norm(nn.Conv2d(4, 6, 2, groups=2)),
        {"parametrizations.weight.original1": (6, 4, 2)},
    ),
    "normed attention": (
        lambda: parametrizations.spectral_norm(attention(), "in_proj_weight"),
        {"parametrizations.in_proj_weight.original": (12, 4, 1), "out_proj.weight": (4, 4, 1)},
    ),
}  # fmt: skip


def made(kind: str) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LAYERS[kind][0]()


@pytest.mark.parametrize("kind", LAYERS)
def test_each_is_prunable_with_exact_counts_and_nothing_is_left_out(kind):
    model, expected = made(kind), LAYERS[kind][1]
    masks = dense(model)  # a warning would be an error
    parameters = dict(model.named_parameters())
    assert masks.keys() == expected.keys()
    assert all(mask.all() and mask.shape == parameters[name].shape for name, mask in masks.items())
    assert counts(masks)[1] == sum(parameters[name].numel() for name in expected)
    for name, (outputs, inputs, groups) in expected.items():
        layout = weights(model)[name].layout
        assert len(layout.outputs(masks[name])) == outputs
        assert len(layout.inputs(masks[name])) == inputs
        assert len(layout.rows(masks[name])) == outputs
        assert layout.split(masks[name]).shape[:3] == (groups, outputs // groups, inputs // groups)


@pytest.mark.parametrize("kind", LAYERS)
def test_rows_are_a_view_and_go_back(kind):
    for name, weight in weights(made(kind)).items():
        x = torch.arange(weight.parameter.numel()).reshape(weight.parameter.shape)
        rows = weight.layout.rows(x)
        assert torch.equal(weight.layout.back(rows, x.shape), x), name
        assert sorted(rows.flatten().tolist()) == list(range(x.numel()))


SPACES = {
    "linear": (), "gpt-2": (), "gpt-2 by its module": (), "conv1d": (5,), "grouped": (5, 5), "depthwise": (5, 5),
    "conv3d": (3, 3, 3), "transposed 1d": (4,), "transposed 2d": (3, 3), "transposed 3d": (2, 2, 2),
    "transposed grouped": (3, 3), "transposed depthwise": (3, 3), "spectral norm": (3, 3), "weight norm": (3, 3),
}  # fmt: skip


@pytest.mark.parametrize("kind", SPACES)
def test_dead_units_are_those_that_change_nothing_and_that_nothing_changes(kind):
    g, some = torch.Generator().manual_seed(1), [0, 0]
    for _ in range(6):
        model = made(kind).eval()
        ((name, weight),) = ((n, w) for n, w in weights(model).items() if w.kind)
        shape = weight.parameter.shape
        mask = torch.rand(shape, generator=g) < 1.2 * weight.layout.rows(weight.parameter).shape[0] / shape.numel()
        if weight.norm is not None:
            mask.flatten(1)[~mask.flatten(1).any(1), 0] = True
        apply_(model, {name: mask})
        nn.init.zeros_(model.bias)
        x = torch.randn(1, 4, *SPACES[kind], generator=g).requires_grad_()
        out = model(x)
        (grad,) = torch.autograd.grad((out * torch.randn(out.shape, generator=g)).sum(), x)
        alive = [(t.movedim(1, 0).flatten(1) != 0).any(1) for t in (out, grad)]
        assert torch.equal(weight.layout.outputs(mask), alive[0])
        assert torch.equal(weight.layout.inputs(mask), alive[1])
        dead = [int((~units).sum()) for units in alive]
        found = find_collapse({name: mask}, model)
        assert [found.dead_outputs.get(name, 0), found.dead_inputs.get(name, 0)] == dead
        some = [a + b for a, b in zip(some, dead, strict=True)]
    assert some[1] > 0
    assert some[0] > 0 or kind == "weight norm"


@pytest.mark.parametrize("swapped", [False, True])
def test_units_of_experts_are_each_expert_s_own(swapped):
    model = Experts(swapped)
    masks = dense(model)
    up = masks["gate_up_proj"].transpose(1, 2) if swapped else masks["gate_up_proj"]
    down = masks["down_proj"].transpose(1, 2) if swapped else masks["down_proj"]
    up[0, 4] = down[1, :, 2] = down[0, 1] = False
    found = find_collapse(masks, model)
    assert found.dead_outputs == {"gate_up_proj": 1, "down_proj": 1}
    assert found.dead_inputs == {"down_proj": 1}
    x = torch.randn(5, 4)
    before = model(x)
    other = Experts(swapped)
    other.load_state_dict(model.state_dict())
    with torch.no_grad():  # the second expert's hidden unit 2 leads nowhere: what leads to it makes no difference
        row = other.gate_up_proj[1].T if swapped else other.gate_up_proj[1]
        row[2] = row[5] = 7.0
    apply_(model, masks), apply_(other, masks)
    assert torch.equal(model(x), other(x))
    assert not torch.equal(model(x), before)


class Biased(nn.Module):
    def __init__(self, **own) -> None:
        super().__init__()
        for name, shape in own.items():
            setattr(self, name, nn.Parameter(torch.randn(shape)))


@pytest.mark.parametrize(
    ("own", "said", "swapped"),
    [
        ({"w1": (3, 4, 5)}, None, False),
        ({"w1": (3, 4, 5)}, True, True),
        ({"up": (3, 4, 5), "up_bias": (3, 5)}, None, True),
        ({"up": (3, 4, 5), "up_bias": (3, 4)}, None, False),
        ({"gate_up_proj": (3, 4, 10), "down_proj": (3, 5, 4)}, None, True),
        ({"gate_up_proj": (3, 10, 4), "down_proj": (3, 4, 5)}, None, False),
        ({"gate_up_proj": (3, 4, 10), "down_proj": (3, 5, 4)}, False, False),
    ],
)
def test_experts_say_where_their_outputs_are(own, said, swapped):
    layer = Biased(**own)
    if said is not None:
        layer.is_transposed = said
    model = nn.ModuleDict({"experts": layer})
    name = f"experts.{next(iter(own))}"
    assert weights(model)[name].layout == Layout(swapped=swapped, stacked=True)
    assert set(all_kept(model)) == {f"experts.{n}" for n, shape in own.items() if len(shape) == 3}


def test_three_dimensions_alone_are_no_experts():
    model = nn.ModuleDict({"tokens": Biased(query=(2, 5, 4)), "expert_pool": Biased(place=(1, 1, 4), w=(2, 3, 3))})
    assert list(all_kept(model)) == ["expert_pool.w"]
    (only,) = left_out(model)
    assert (only.name, only.include) == ("tokens.query", "tokens.query")


# -- what is computed ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["weight norm", "spectral norm", "normed attention"])
def test_zeros_of_what_is_scaled_are_zeros_of_the_weight(kind):
    model = made(kind)
    full = dense(model)
    masks = Global(density=0.5)(Magnitude()(model, full), full)
    apply_(model, masks)
    for name, mask in masks.items():
        leaf = name.split(".")[-2] if "parametrizations" in name else None
        effective = getattr(model, leaf) if leaf else model.get_parameter(name)
        assert torch.equal(effective != 0, mask)


def test_magnitudes_of_normed_weights_are_those_that_the_layer_computes_with():
    model = parametrizations.weight_norm(nn.Linear(5, 3))
    g, v = (getattr(model.parametrizations.weight, f"original{i}") for i in (0, 1))
    with torch.no_grad():
        g.copy_(torch.tensor([[0.01], [1.0], [100.0]]))
    expected = (g * v / v.norm(dim=1, keepdim=True)).abs()
    name = "parametrizations.weight.original1"
    scores = Magnitude()(model, dense(model))[name]
    assert torch.allclose(scores, expected)
    assert not scores.requires_grad
    assert torch.allclose(MBP()(model, dense(model))[name], expected * 5**0.5)

    model = nn.Sequential(parametrizations.spectral_norm(nn.Linear(5, 3)), nn.Dropout())
    model[0].parametrizations.weight.original.data.mul_(50)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    (scores,) = Magnitude()(model, dense(model)).values()
    assert model.training
    assert model[1].training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(scores, model.eval()[0].weight.detach().abs())


def test_zeros_of_other_parametrisations_are_none_of_the_weight():
    class Shift(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + 1

    model = parametrizations.spectral_norm(nn.Linear(3, 3))
    nn.utils.parametrize.register_parametrization(model, "weight", Shift())
    for each in (model, parametrizations.orthogonal(nn.Linear(3, 3))):
        (only,) = left_out(each)
        assert only.note.startswith("a weight is computed from it")


def test_a_unit_of_weight_norm_without_weights_is_refused_before_it_is_not_a_number():
    model = parametrizations.weight_norm(nn.Linear(4, 3))
    masks = dense(model)
    masks["parametrizations.weight.original1"][1] = False
    with pytest.raises(ValueError, match="leaves 1 norms of weight_norm without weights"):
        apply_(model, masks)
    assert torch.isfinite(model.weight).all()
    masks["parametrizations.weight.original1"][1, 2] = True
    apply_(model, masks)
    assert torch.isfinite(model.weight).all()
    across = parametrizations.weight_norm(nn.Linear(4, 3), dim=1)
    masks = dense(across)
    masks["parametrizations.weight.original1"][1] = False
    apply_(across, masks)
    assert torch.isfinite(across.weight).all()
    masks["parametrizations.weight.original1"][:, 1] = False
    with pytest.raises(ValueError, match="leaves 1 norms"):
        verify(across, masks)
    whole = parametrizations.weight_norm(nn.Linear(4, 3), dim=None)
    masks = dense(whole)
    masks["parametrizations.weight.original1"][1:] = False
    apply_(whole, masks)
    assert torch.isfinite(whole.weight).all()


class TestPrunedByTorch:
    """A layer of `torch.nn.utils.prune` has its mask taken over."""

    def made(self) -> nn.Sequential:
        model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Conv1d(8, 4, 1), nn.Linear(1, 4))
        prune.l1_unstructured(model[0], "weight", amount=0.25)
        prune.ln_structured(model[2], "weight", amount=0.5, n=2, dim=0)
        return model

    def test_masks_start_from_it(self):
        model = self.made()
        masks = dense(model)
        assert list(masks) == ["0.weight_orig", "2.weight_orig", "3.weight"]
        assert torch.equal(masks["0.weight_orig"], model[0].weight_mask.bool())
        assert torch.equal(masks["2.weight_orig"], model[2].weight_mask.bool())
        assert counts(masks) == (48 + 16 + 4, 64 + 32 + 4)
        assert len(find_collapse(masks, model).dead_outputs) == 1
        masks["0.weight_orig"][0, 0] = False  # it is a copy
        assert model[0].weight_mask.sum() == 48

    def test_going_on_keeps_what_was_pruned_at_zero(self):
        model = self.made()
        before = model[0].weight.detach().clone()
        masks = dense(model)
        masks = Global(count=30)(Magnitude()(model, masks), masks)
        optimizer = torch.optim.Adam(model.parameters())
        with held(model, masks, optimizer):
            for _ in range(3):
                model[0](torch.randn(2, 8)).square().sum().backward()
                optimizer.step()
        assert ((before == 0) <= ~masks["0.weight_orig"]).all()
        model[0](torch.randn(2, 8))
        assert torch.equal(model[0].weight != 0, masks["0.weight_orig"])

    def test_weights_cannot_return_behind_its_back(self):
        model = self.made()
        masks = dense(model)
        masks = Global(density=1.0, recover=True)(Magnitude()(model, masks), masks)
        with pytest.raises(ValueError, match=r"'0.weight_orig' keeps 16 weights.*prune.remove\(module, 'weight'\)"):
            apply_(model, masks)
        for layer in (model[0], model[2]):
            prune.remove(layer, "weight")
        assert counts(dense(model)) == (100, 100)

    def test_a_measurement_leaves_the_computed_weight(self):
        model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
        prune.l1_unstructured(model[0], "weight", amount=0.5)
        before, values = model[0].weight, model[0].weight.detach().clone()
        masks = dense(model)
        find_collapse(masks, model, torch.zeros(1, 4))
        SNIP()(model, masks, [(torch.randn(4, 4), torch.tensor([0, 1, 0, 1]))])
        assert model[0].weight is before
        assert torch.equal(before, values)


# -- output embeddings ---------------------------------------------------------------------------------------------


class LanguageModel(nn.Module):
    def __init__(self, tied: bool, head: str = "module") -> None:
        super().__init__()
        self.embed, self.layer = nn.Embedding(9, 4), nn.Linear(4, 4)
        self.lm_head = Conv1D(9, 4) if head == "conv1d" else nn.Linear(4, 9, bias=False)
        self.kind = head
        if tied:
            self.lm_head.weight = self.embed.weight

    def get_output_embeddings(self):
        if self.kind == "fails":
            raise NotImplementedError
        return {"none": None, "parameter": self.lm_head.weight}.get(self.kind, self.lm_head)


class Plain(LanguageModel):
    get_output_embeddings = None


@pytest.mark.parametrize(
    ("make", "protected", "why"),
    [
        (lambda: LanguageModel(False), "lm_head.weight", "output embeddings"),
        (lambda: nn.ModuleDict({"inner": LanguageModel(False)}), "inner.lm_head.weight", "output embeddings"),
        (lambda: LanguageModel(False, "conv1d"), "lm_head.weight", "output embeddings"),
        (lambda: LanguageModel(False, "parameter"), "lm_head.weight", "output embeddings"),
        (lambda: LanguageModel(True), "embed.weight", "output embeddings, tied as 'lm_head.weight'"),
        (lambda: Plain(True), "embed.weight", "output embeddings, tied as 'lm_head.weight'"),
        (lambda: torch.compile(LanguageModel(False)), "lm_head.weight", "output embeddings"),
    ],
)
def test_output_embeddings_are_protected_unless_a_pattern_names_them(make, protected, why):
    model = make()
    assert protected not in all_kept(model)
    (x,) = (x for x in left_out(model) if x.name == protected)
    assert (x.note, x.include) == (why, protected)
    assert protected in all_kept(model, include=x.include)
    assert "lm_head.weight" in protected or protected in all_kept(model, include="*lm_head.weight")


@pytest.mark.parametrize("model", [Plain(False), LanguageModel(False, "none"), LanguageModel(False, "fails")])
def test_other_last_layers_are_layers(model):
    assert list(all_kept(model)) == ["layer.weight", "lm_head.weight"]


# -- what cannot be pruned -----------------------------------------------------------------------------------------


def frozen(values: Tensor) -> nn.Parameter:
    return nn.Parameter(values, requires_grad=False)


@pytest.mark.parametrize(
    "values",
    [
        torch.zeros(4, 4, dtype=torch.int8),
        torch.zeros(8, 1, dtype=torch.uint8),  # packed, as four-bit weights are
        torch.zeros(4, 4, dtype=torch.complex64),
        torch.zeros(4, 4).to(torch.float8_e4m3fn),
    ],
    ids=lambda x: str(x.dtype),
)
def test_layers_of_other_types_are_listed_with_the_reason(values):
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = frozen(values)
    assert list(all_kept(model)) == ["0.weight"]
    (only,) = left_out(model)
    assert (only.name, only.include, only.note) == ("1.weight", None, f"{values.dtype} cannot be pruned")
    with pytest.raises(ValueError, match=rf"cannot prune '1.weight': its dtype must be one of .*, got {values.dtype}"):
        dense(model, include="1.weight")
    assert list(dense(model, exclude="1.*")) == ["0.weight"]
    with pytest.raises(ValueError, match="no prunable weights.*cannot be pruned"):
        dense(model[1])


@pytest.mark.parametrize("lazy", [nn.LazyLinear(3), nn.LazyConv2d(3, 2), nn.LazyConvTranspose1d(3, 2)], ids=str)
def test_lazy_layers_want_a_batch_first(lazy):
    model = nn.Sequential(lazy, nn.Linear(3, 3))
    with pytest.raises(ValueError, match=r"'0.weight' has no shape yet: pass a batch"):
        dense(model)
    assert list(dense(model, exclude="0.*")) == ["1.weight"]


@pytest.mark.parametrize("make", [lambda: nn.Linear(3, 3), lambda: nn.Conv2d(3, 3, 1), lambda: Conv1D(3, 3)])
def test_weights_without_values_are_refused(make):
    with pytest.raises(ValueError, match="is on device 'meta' and has no values"):
        dense(make().to("meta"))
    assert left_out(make().to("meta")) == ()


def test_a_single_number_can_be_included_and_held():
    model = nn.Sequential(nn.Linear(3, 3))
    model.scale = nn.Parameter(torch.tensor(2.0))
    masks = dense(model, include=["scale", "0.bias"])
    assert {name: tuple(mask.shape) for name, mask in masks.items()} == {
        "scale": (), "0.weight": (3, 3), "0.bias": (3,),
    }  # fmt: skip
    masks["scale"] = torch.tensor(False)
    masks["0.bias"][1] = False
    apply_(model, masks)
    verify(model, masks)
    assert float(model.scale.detach()) == 0
    found = find_collapse(masks, model)
    assert (found.empty, found.dead_outputs) == (("scale",), {"scale": 1, "0.bias": 1})


# -- scores know how their tensors lie -----------------------------------------------------------------------------


def test_layouts_are_added_to_scores_where_there_is_something_to_say():
    plain = nn.Sequential(nn.Linear(3, 3), nn.Embedding(3, 3))
    scores = {"0.weight": torch.ones(3, 3)}
    assert laid_out(plain, scores) is scores
    mixed = nn.Sequential(nn.Linear(3, 3), nn.ConvTranspose1d(3, 3, 1), nn.Conv1d(3, 3, 1, groups=3), Conv1D(3, 3))
    scores = {name: torch.ones(mask.shape) for name, mask in all_kept(mixed).items()}
    found = laid_out(mixed, scores)
    assert isinstance(found, Scored)
    assert dict(found) == scores
    assert found.layouts == {
        "1.weight": Layout(swapped=True), "2.weight": Layout(groups=3), "3.weight": Layout(swapped=True),
    }  # fmt: skip
    assert laid_out(mixed, found).layouts == found.layouts


# -- transformers --------------------------------------------------------------------------------------------------


def test_small_models_of_transformers():
    transformers = pytest.importorskip("transformers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gpt2 = transformers.GPT2LMHeadModel(
            transformers.GPT2Config(n_layer=2, n_embd=8, n_head=2, vocab_size=20, n_positions=16)
        )
        sizes = {
            "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2,
            "num_key_value_heads": 2, "vocab_size": 20, "tie_word_embeddings": False,
        }  # fmt: skip
        llama = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes))
        mixtral = transformers.MixtralForCausalLM(transformers.MixtralConfig(**sizes, num_local_experts=3))
    assert counts(all_kept(gpt2)) == (2 * 12 * 64,) * 2
    assert all(weights(gpt2)[name].layout == Layout(swapped=True) for name in all_kept(gpt2))
    assert {x.name: x.note for x in left_out(gpt2)} == {
        "transformer.wte.weight": "output embeddings, tied as 'lm_head.weight'", "transformer.wpe.weight": "",
    }  # fmt: skip
    assert counts(all_kept(llama)) == (2 * (4 * 64 + 3 * 96),) * 2
    assert {x.name: x.note for x in left_out(llama)} == {
        "model.embed_tokens.weight": "", "lm_head.weight": "output embeddings",
    }  # fmt: skip
    experts = {name: w.layout for name, w in weights(mixtral).items() if w.kind == "experts"}
    assert len(experts) == 4
    assert set(experts.values()) == {Layout(stacked=True)}
    assert all("experts" not in x.name for x in left_out(mixtral))
