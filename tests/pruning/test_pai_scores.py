"""Scores before training: golden values, definitions, signs, and what a score must not depend on."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from reference import pai_scores as reference
from torch import nn
from torch.nn import functional as F

from sparsight import recipes
from sparsight.model.batch import batch_size
from sparsight.model.loss import cross_entropy
from sparsight.model.loss import cross_entropy as published_loss
from sparsight.model.masks import dense
from sparsight.pruning.allocate.fixed import FORCE, Global, IterativeSNIP
from sparsight.pruning.allocate.shuffled import Shuffled
from sparsight.pruning.schedules import Geometric, Linear, rounds
from sparsight.pruning.score.grasp import GraSP
from sparsight.pruning.score.magnitude import Magnitude
from sparsight.pruning.score.random import Random
from sparsight.pruning.score.snip import SNIP
from sparsight.pruning.score.synflow import SynFlow
from sparsight.zoo.networks import mlp, resnet8

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "robust_pai_golden.json").read_text())
TINY = GOLDEN["tiny_mlp"]


def doubles(value) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def tiny(activation=nn.Tanh, bias: bool = True) -> nn.Sequential:
    """The 4-5-4-3 network of the golden file."""
    layers: list[nn.Module] = []
    for i, (w, b) in enumerate(zip(TINY["W"], TINY["b"], strict=True)):
        layer = nn.Linear(len(w[0]), len(w), bias=bias, dtype=torch.float64)
        layer.weight.data = doubles(w)
        if bias:
            layer.bias.data = doubles(b)
        layers += [layer, activation()] if i < 2 else [layer]
    return nn.Sequential(*layers)


X, Y = doubles(TINY["X"]), torch.tensor(TINY["y"])
WHOLE, SPLIT = [(X, Y)], [(X[:4], Y[:4]), (X[4:], Y[4:])]


def equal(masks, expected) -> bool:
    return all(torch.equal(m, torch.tensor(e, dtype=torch.bool)) for m, e in zip(masks.values(), expected, strict=True))


def near(scores, expected, rtol: float) -> None:
    """Relative to the largest of all."""
    expected = [e if isinstance(e, torch.Tensor) else doubles(e) for e in expected]
    largest = max(float(e.abs().max()) for e in expected)
    for score, e in zip(scores.values(), expected, strict=True):
        assert score.dtype is torch.float64
        torch.testing.assert_close(score, e, rtol=0, atol=rtol * largest)


def convolutional(norm: bool = True, *, pool: bool = False) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        layers = [nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3) if norm else nn.Identity(), nn.Softplus()]
        layers += [nn.MaxPool2d(2) if pool else nn.AvgPool2d(2), nn.Flatten(), nn.Linear(12, 3)]
        model = nn.Sequential(*layers).double()
        if norm:
            model[1].running_mean.normal_()
            model[1].running_var.uniform_(0.5, 2)
            nn.init.normal_(model[1].weight)
        return model


def images(n: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(2)
    return torch.randn(n, 2, 4, 4, generator=g, dtype=torch.float64), torch.randint(0, 3, (n,), generator=g)


def weights_of(model: nn.Module) -> list[str]:
    return list(dense(model))


# -- golden ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batches", [WHOLE, SPLIT], ids=["whole", "split"])
class TestGolden:
    def test_snip(self, batches):
        model = tiny()
        masks, golden = dense(model), TINY["tanh"]
        scores = SNIP()(model, masks, batches)
        near(scores, golden["snip_unnormalised"], 1e-12)
        assert equal(Global(count=26)(scores, masks), golden["snip_mask_keep26"])
        assert equal(Global(density=0.25)(scores, masks), golden["snip_mask_keep13"])

    @pytest.mark.parametrize("temperature", [1.0, 200.0])
    def test_grasp(self, batches, temperature):
        model = tiny()
        masks, golden = dense(model), TINY["tanh"][f"grasp_T{temperature:g}"]
        scores = GraSP(temperature=temperature)(model, masks, batches)
        near(scores, golden["keep_score_theta_Hg"], 1e-10)
        assert equal(Global(count=26)(scores, masks), golden["mask_keep26"])

    def test_force_and_iterative_snip(self, batches):
        """The counts of the golden file are rounded down. Its last round of iterative SNIP ends among zeros: a tie."""
        model = tiny()
        for key, recover in (("iter_snip_T5_density0.25", False), ("force_T5_density0.25", True)):
            masks, golden, history = dense(model), TINY["tanh"][key], []
            scores = {}
            for at in rounds(Geometric(0.25), 5):
                scores = SNIP()(model, masks, batches)
                masks = Global(count=int(52 * at + 1e-9), recover=recover)(scores, masks)
                history.append([int(m.sum()) for m in masks.values()])
            assert history[:-1] == golden["kept_per_layer_history"][:-1]
            decided = {name: (score > 0) for name, score in scores.items()}
            expected = [torch.tensor(e, dtype=torch.bool) for e in golden["mask"]]
            for name, e in zip(masks, expected, strict=True):
                assert torch.equal(masks[name] & decided[name], e & decided[name])
            assert recover == equal(masks, golden["mask"])


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh, nn.GELU], ids=lambda a: a.__name__)
class TestSynFlowGolden:
    def test_scores_and_conservation(self, activation):
        golden, masks = TINY["synflow"], dense(tiny())
        scores = SynFlow()(tiny(activation), masks, WHOLE)
        near(scores, golden["no_bias_scores"], 1e-12)
        assert [float(s.sum()) for s in scores.values()] == pytest.approx([golden["R"]] * 3, rel=1e-13)
        near(SynFlow(input_shape=(4,))(tiny(activation, bias=False), masks), golden["no_bias_scores"], 1e-12)
        scores = SynFlow(bias=True)(tiny(activation), masks, WHOLE)
        near(scores, golden["with_abs_bias_scores"], 1e-12)

    def test_one_round(self, activation):
        model = tiny(activation)
        masks = dense(model)
        masks = Global(count=52 - int((1 - 10**-0.5) * 52))(SynFlow(input_shape=(4,))(model, masks), masks)
        assert equal(masks, TINY["synflow"]["one_shot_mask_density_10^-0.5"])


@pytest.mark.parametrize(
    ("activation", "density", "key"), [(nn.ReLU, 0.5, "0.5"), (nn.Tanh, 10**-0.5, "10^-0.5")], ids=["relu", "tanh"]
)
def test_synflow_in_a_hundred_rounds(activation, density, key):
    model, scorer = tiny(activation), SynFlow(input_shape=(4,))
    masks = dense(model)
    for at in rounds(Geometric(density), 100):
        masks = Global(at)(scorer(model, masks), masks)
    assert equal(masks, TINY["synflow"][f"iter100_mask_density_{key}"])


def test_magnitude_golden():
    model = tiny()
    masks = dense(model)
    assert equal(Global(count=26)(Magnitude()(model, masks), masks), TINY["magnitude"]["mask_keep26"])


# -- definitions -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["train", "eval"])
@pytest.mark.parametrize("training", [True, False])
class TestDefinitions:
    """By difference quotients, on a convolution with batch norm, whatever the model's own flag says."""

    def loss(self, norm):
        def of(model: nn.Module) -> torch.Tensor:
            model.train(norm == "train")
            return F.cross_entropy(model(images()[0]), images()[1])

        return of

    def test_snip(self, norm, training):
        model = convolutional().train(training)
        expected = reference.snip(model, weights_of(model), self.loss(norm))
        near(SNIP(batch_norm=norm)(model, dense(model), [images()]), expected.values(), 1e-8)

    def test_grasp(self, norm, training):
        model = convolutional().train(training)
        expected = reference.grasp(model, weights_of(model), self.loss(norm))
        near(GraSP(batch_norm=norm)(model, dense(model), [images()]), expected.values(), 1e-7)


def test_batches_of_any_length_count_by_their_samples():
    """With stored statistics the batches are a detail; lengths are uneven so that a mean of means would differ."""
    model, (x, y) = convolutional(), images()
    masks = dense(model)
    parts = [(x[:1], y[:1]), (x[1:3], y[1:3]), (x[3:], y[3:])]
    for scorer in (SNIP(batch_norm="eval"), GraSP(batch_norm="eval")):
        near(scorer(model, masks, parts), scorer(model, masks, [(x, y)]).values(), 1e-12)


def test_synflow_sums_products_over_paths():
    model = tiny()
    masks = {n: torch.rand(m.shape, generator=torch.Generator().manual_seed(3)) < 0.6 for n, m in dense(model).items()}
    masked = [p.data * masks[n] for n, p in model.named_parameters() if n in masks]
    through, total = reference.paths(masked)
    scores = SynFlow(input_shape=(4,))(model, masks)
    for (name, mask), expected in zip(masks.items(), through, strict=True):
        torch.testing.assert_close(scores[name] * mask, expected, rtol=1e-12, atol=0)
        assert float((scores[name] * mask).sum()) == pytest.approx(total, rel=1e-12)


# -- masks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scorer", [SNIP(), GraSP(), SynFlow()], ids=lambda s: type(s).__name__)
class TestMasks:
    def masks(self, model):
        g = torch.Generator().manual_seed(4)
        return {n: torch.rand(m.shape, generator=g) < 0.5 for n, m in dense(model).items()}

    def test_alive_weights_are_scored_in_the_masked_network(self, scorer):
        """As if the pruned weights were 0 in the model; what they are does not matter, NaN included."""
        model = tiny()
        masks = self.masks(model)
        scores = scorer(model, masks, WHOLE)
        zeroed, broken = tiny(), tiny()
        for name, mask in masks.items():
            dict(zeroed.named_parameters())[name].data[~mask] = 0.0
            dict(broken.named_parameters())[name].data[~mask] = float("nan")
        for other in (zeroed, broken):
            again = scorer(other, masks, WHOLE)
            for name, mask in masks.items():
                assert torch.equal(scores[name][mask], again[name][mask])
        assert any(not torch.equal(scorer(model, dense(model), WHOLE)[n][masks[n]], scores[n][masks[n]]) for n in masks)

    def test_pruned_weights_are_scored_by_their_own_value(self, scorer):
        """What FORCE ranks: the value that a weight would have, times the derivative where it is 0."""
        model = tiny()
        masks = self.masks(model)
        scores = scorer(model, masks, WHOLE)
        doubled = tiny()
        for name, mask in masks.items():
            dict(doubled.named_parameters())[name].data[~mask] *= 2
        again = scorer(doubled, masks, WHOLE)
        assert all(torch.equal(2 * scores[n][~masks[n]], again[n][~masks[n]]) for n in masks)
        assert any(bool((scores[n][~masks[n]] != 0).any()) for n in masks)


def test_force_takes_weights_back_and_iterative_snip_does_not():
    model = tiny()
    for level, may_return in ((FORCE(0.25, 5), True), (IterativeSNIP(0.25, 5), False)):
        masks, returned = dense(model), False
        for allocator in level:
            before, masks = masks, allocator(SNIP()(model, masks, WHOLE), masks)
            returned = returned or any(bool((masks[n] & ~before[n]).any()) for n in masks)
        assert returned == may_return
        assert sum(int(m.sum()) for m in masks.values()) == 13


def test_one_round_of_either_is_snip():
    model = tiny()
    masks = dense(model)
    scores = SNIP()(model, masks, WHOLE)
    expected = Global(0.5)(scores, masks)
    for level in (FORCE(0.5, 1), IterativeSNIP(0.5, 1)):
        (allocator,) = level
        assert all(torch.equal(m, expected[n]) for n, m in allocator(scores, masks).items())


def test_levels_follow_the_schedule():
    golden = GOLDEN["schedules"]
    level = FORCE(0.01, 60)
    assert [level[i].density for i in (0, 9, 29, 59)] == pytest.approx(golden["force_exp_T60_rho0.01"], rel=1e-12)
    assert all(a.recover for a in level)
    linear = IterativeSNIP(0.1, 5, schedule=Linear, min_keep=3)
    assert [a.density for a in linear] == pytest.approx(golden["linear(e)=1-(1-rho)e/n"]["rho=0.1,n=5"])
    assert all(a.min_keep == 3 and not a.recover for a in linear)
    with pytest.raises(ValueError, match="rounds must be at least 1"):
        FORCE(0.1, 0)


# -- which way is up ---------------------------------------------------------------------------------------------


def gradient_norm(model: nn.Module) -> float:
    weights = [p for n, p in model.named_parameters() if n.endswith("weight")]
    return sum(float(g.square().sum()) for g in torch.autograd.grad(F.cross_entropy(model(X), Y), weights))


def without(model: nn.Module, masks) -> nn.Module:
    model = copy.deepcopy(model)
    for name, mask in masks.items():
        dict(model.named_parameters())[name].data[~mask] = 0.0
    return model


def turned(scores):
    return {name: -score for name, score in scores.items()}


def test_what_snip_keeps_changes_the_loss_less():
    model = tiny()
    masks, scores = dense(model), SNIP()(model, dense(model), WHOLE)

    def change(scores) -> float:
        with torch.no_grad():
            pruned = without(model, Global(count=47)(scores, masks))
            return abs(float(cross_entropy(pruned, (X, Y)) - cross_entropy(model, (X, Y))))

    assert change(scores) < 0.1 * change(turned(scores))


def test_what_grasp_keeps_carries_the_gradient():
    """Two times the score is by how much ||g||^2 falls per unit of the weight taken away."""
    model = tiny()
    masks, scores = dense(model), GraSP()(model, dense(model), WHOLE)
    before, h = gradient_norm(model), 1e-6
    for name in masks:
        less = copy.deepcopy(model)
        dict(less.named_parameters())[name].data[0, 0] *= 1 - h
        fallen = (before - gradient_norm(less)) / h
        assert fallen == pytest.approx(2 * float(scores[name][0, 0]), rel=1e-4)
    kept = gradient_norm(without(model, Global(count=42)(scores, masks)))
    worst = gradient_norm(without(model, Global(count=42)(turned(scores), masks)))
    assert kept > 2 * before > 3 * worst


class Casting(nn.Module):
    """Casts its input to the weights' own type, whatever it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3, dtype=torch.bfloat16)

    def forward(self, x):
        return self.fc(x.bfloat16())


@pytest.mark.parametrize(("model", "shape"), [(Casting(), (4,)), (nn.Linear(4, 3), (5,))])
def test_synflow_says_why_it_cannot_run_a_network(model, shape):
    said = rf"cannot run the network in float64 on ones of shape \(1, {shape[0]}\): mat1 and mat2 .* must not cast"
    with pytest.raises(ValueError, match=said):
        SynFlow(input_shape=shape)(model, dense(model))


def test_what_synflow_keeps_lets_more_through():
    model = tiny()
    masks = dense(model)
    scores = SynFlow(input_shape=(4,))(model, masks)

    def flow(masks) -> float:
        return float(SynFlow(input_shape=(4,))(without(model, masks), dense(model))["0.weight"].sum())

    assert flow(Global(count=26)(scores, masks)) > 0.5 * flow(masks) > flow(Global(count=26)(turned(scores), masks))


# -- SynFlow and the layers that there are -----------------------------------------------------------------------


@pytest.mark.parametrize("pool", [True, False])
def test_synflow_is_conserved_through_convolutions_norms_and_pooling(pool):
    model = convolutional(pool=pool)
    first, last = (float(s.sum()) for s in SynFlow()(model, dense(model), [images()]).values())
    assert first == pytest.approx(last, rel=1e-12)
    assert first > 0


def test_synflow_scales_by_the_norm():
    """A batch norm is gamma / sqrt(variance + eps), whatever its mean and shift are: fold it by hand."""
    model = convolutional()
    norm = model[1]
    folded = copy.deepcopy(model)
    scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach()
    folded[0].weight.data *= scale.reshape(-1, 1, 1, 1)
    folded[1] = nn.Identity()
    got = SynFlow(input_shape=(2, 4, 4))(model, dense(model))
    expected = SynFlow(input_shape=(2, 4, 4))(folded, dense(folded))
    near(got, expected.values(), 1e-12)
    norm.running_var.fill_(1.0)
    norm.eps = 0.0
    near(SynFlow(input_shape=(2, 4, 4))(model, dense(model)),
         SynFlow(batch_norm="identity", input_shape=(2, 4, 4))(model, dense(model)).values(), 1e-12)  # fmt: skip


def test_synflow_in_float64_where_float32_overflows():
    model = nn.Sequential(*(nn.Linear(50, 50, bias=False) for _ in range(40)))
    for layer in model:
        nn.init.normal_(layer.weight, std=2.0, generator=torch.Generator().manual_seed(0))
    scores = SynFlow(input_shape=(50,))(model, dense(model))
    sums = [float(s.sum()) for s in scores.values()]
    assert min(sums) > 1e60
    assert sums == pytest.approx([sums[0]] * 40, rel=1e-10)


def test_synflow_looks_at_no_data():
    model = resnet8((1, 8, 8), 10, seed=0)
    masks = dense(model)
    a = SynFlow()(model, masks, [(torch.full((3, 1, 8, 8), float("nan")), None)])
    b = SynFlow(input_shape=(1, 8, 8))(model, masks)
    assert all(torch.equal(a[n], b[n]) for n in masks)
    assert all(bool((s > 0).all()) for s in a.values())


def test_synflow_in_a_hundred_rounds_empties_no_layer_where_one_round_does():
    """Layer collapse, and what many rounds do about it: widths of 40, density 1 in 200."""
    model = nn.Sequential(*(nn.Linear(*s) for s in ((400, 40), (40, 40), (40, 40), (40, 2))))
    for i, layer in enumerate(model):
        nn.init.normal_(layer.weight, std=layer.in_features**-0.5, generator=torch.Generator().manual_seed(i))

    def after(n: int) -> list[int]:
        masks = dense(model)
        for at in rounds(Geometric(0.005), n):
            masks = Global(at, min_keep=0)(SynFlow(input_shape=(400,))(model, masks), masks)
        return [int(m.sum()) for m in masks.values()]

    assert min(after(1)) == 0
    assert min(after(100)) > 0


# -- other networks ----------------------------------------------------------------------------------------------


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 8)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.3, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.block(self.embed(x)).mean(1))


@pytest.mark.parametrize("scorer", [SNIP(), GraSP(), SynFlow()], ids=lambda s: type(s).__name__)
def test_attention_and_dropout(scorer):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Attention()
    masks = dense(model, include="*in_proj_weight")
    x, y = torch.randn(6, 5, 4, generator=torch.Generator().manual_seed(1)), torch.arange(6) % 3
    one = scorer(model, masks, [(x, y)])
    with torch.no_grad():
        two = scorer(model, masks, [(x, y)])
    assert all(torch.equal(one[n], two[n]) for n in masks)
    assert all(float(s.abs().sum()) > 0 for s in one.values())


def test_a_layer_that_is_not_used_scores_zero():
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = tiny(), nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.used(x)

    model = Idle()
    for scorer in (SNIP(), GraSP(), SynFlow()):
        scores = scorer(model, dense(model), WHOLE)
        assert not scores["idle.weight"].any()
        assert scores["used.0.weight"].any()


def test_a_tied_weight_is_scored_once_with_all_its_uses():
    a, b = nn.Linear(4, 4, bias=False).double(), nn.Linear(4, 4, bias=False).double()
    b.weight = a.weight
    model = nn.Sequential(a, nn.Tanh(), b)
    expected = reference.snip(model, ["0.weight"], lambda m: F.cross_entropy(m(X), Y))
    near(SNIP()(model, dense(model), WHOLE), expected.values(), 1e-8)


def test_a_loss_of_ones_own():
    model = tiny()

    def squares(model: nn.Module, batch) -> torch.Tensor:
        return model(batch["inputs"]).square().mean()

    scores = SNIP(loss=squares)(model, dense(model), [{"inputs": X}])
    near(scores, reference.snip(model, weights_of(model), lambda m: m(X).square().mean()).values(), 1e-8)


def test_half_precision_is_summed_in_float32():
    model = tiny().bfloat16()
    assert all(s.dtype is torch.float32 for s in SNIP()(model, dense(model), [(X.bfloat16(), Y)] * 2).values())


@pytest.mark.parametrize("scorer", [SNIP(), GraSP(), SynFlow()], ids=lambda s: type(s).__name__)
def test_inference_mode_changes_nothing(scorer):
    """Neither around the call, nor where the network and its data were made in it."""
    model = convolutional()
    expected = scorer(model, dense(model), [images()])
    with torch.inference_mode():
        near(scorer(model, dense(model), [images()]), [s.clone() for s in expected.values()], 1e-12)
        made, batches = convolutional(), [images()]
    near(scorer(made, dense(made), batches), expected.values(), 1e-12)


@pytest.mark.parametrize("scorer", [SNIP(), GraSP(), SynFlow()], ids=lambda s: type(s).__name__)
def test_scores_that_are_all_0_are_warned_of(scorer):
    model = tiny()
    masks = {**dense(model), "2.weight": torch.zeros(4, 5, dtype=torch.bool)}
    masks["0.weight"] = torch.zeros_like(masks["0.weight"])
    model[4].weight.data.zero_()
    with pytest.warns(UserWarning, match=f"{type(scorer).__name__} scores every weight 0"):
        scorer(model, masks, WHOLE)


@pytest.mark.parametrize(
    "activation",
    [torch.erf, torch.sin, torch.atan, torch.arctan, lambda x: x.clamp(0, 1), lambda x: torch.clamp(x, max=1.0)],
)
def test_synflow_takes_any_activation_for_the_identity(activation):
    model, plain = (mlp((4,), 3, hidden=(5,), activation=phi, seed=0) for phi in (activation, torch.relu))
    near(SynFlow((4,))(model, dense(model)), SynFlow((4,))(plain, dense(plain)).values(), 1e-12)


class Shifted(nn.Module):
    def __init__(self, shift: float = 127.5) -> None:
        super().__init__()
        self.shift, self.a, self.b = shift, nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = (x - self.shift) / 127.5
        return self.b(x - torch.relu(self.a(x)) if self.shift == 0 else self.a(x))


@pytest.mark.parametrize("shift", [127.5, 0])
def test_synflow_refuses_what_is_not_positive(shift):
    model = Shifted(shift)
    with pytest.raises(ValueError, match=r"SynFlow has negative scores in '.*weight', because the forward subtracts"):
        SynFlow((4,))(model, dense(model))


# -- what is refused ---------------------------------------------------------------------------------------------


def test_what_is_not_finite_is_refused_by_name():
    model = tiny()
    masks = dense(model)
    model[2].weight.data[1, 2] = float("inf")
    for scorer in (SNIP(), GraSP(), SynFlow()):
        with pytest.raises(ValueError, match=rf"{type(scorer).__name__} has \d+ scores in '.*weight' that are not fin"):
            scorer(model, masks, WHOLE)
    model = tiny()
    with pytest.raises(ValueError, match="'0.weight'"):
        SNIP()(model, masks, [(X * float("nan"), Y)])


def test_what_is_refused():
    model = tiny()
    masks = dense(model)
    for scorer in (SNIP(), GraSP()):
        with pytest.raises(ValueError, match="needs at least one batch"):
            scorer(model, masks, [])
        with pytest.raises(ValueError, match=r"at least one sample, got .*\(0, 4\)"):
            scorer(model, masks, [(X[:0], Y[:0])])
    with pytest.raises(ValueError, match="needs input_shape or at least one batch"):
        SynFlow()(model, masks)
    for wrong in (lambda: SNIP(batch_norm="both"), lambda: GraSP(batch_norm=""), lambda: SynFlow(batch_norm="train")):
        with pytest.raises((ValueError, TypeError), match="batch_norm"):
            wrong()
    with pytest.raises(ValueError, match="temperature must be"):
        GraSP(temperature=0.0)


@pytest.mark.parametrize("scorer", [SNIP(), GraSP()], ids=lambda s: type(s).__name__)
def test_batches_are_a_sequence_of_pairs(scorer):
    model = tiny()
    with pytest.raises(TypeError, match="batches"):
        scorer(model, dense(model), (batch for batch in WHOLE))
    with pytest.raises(TypeError, match=r"batches \[\(x, y\)\], got one batch \(x, y\)"):
        scorer(model, dense(model), (X, Y))


def test_wrong_arguments_are_named():
    for shape in (4, (0, 3)):
        with pytest.raises((ValueError, TypeError), match="input_shape"):
            SynFlow(shape)
    with pytest.raises((ValueError, TypeError), match="temperature"):
        GraSP(temperature="a")
    for make in (recipes.snip, recipes.grasp, recipes.sbp, recipes.sbp_sr):
        with pytest.raises(ValueError, match=r"density must be in \(0, 1\], got 0"):
            make(density=0)
        with pytest.raises(ValueError, match="score_batches must be at least 1, got 0"):
            make(score_batches=0)


def test_samples_of_a_batch():
    assert batch_size((X, Y)) == 6
    assert batch_size({"name": "a", "x": [X]}) == 6
    assert published_loss is cross_entropy
    with pytest.raises(ValueError, match="got dict"):
        batch_size({"x": 3})


# -- the sanity check --------------------------------------------------------------------------------------------


def test_shuffled_keeps_the_count_of_every_tensor_and_nothing_else():
    model = resnet8((1, 8, 8), 10, seed=0)
    masks = dense(model)
    scores = Random(3)(model, masks)
    plain, shuffled = Global(0.2).plan(scores, masks), Shuffled(Global(0.2), seed=1).plan(scores, masks)
    assert shuffled.groups == plain.groups
    overlap = sum(int((plain.masks[n] & shuffled.masks[n]).sum()) for n in masks)
    kept = sum(int(m.sum()) for m in plain.masks.values())
    assert 0.15 * kept < overlap < 0.25 * kept  # as by chance
    for name, mask in shuffled.masks.items():
        assert int(mask.sum()) == int(plain.masks[name].sum())
        assert torch.equal(mask, Shuffled(Global(0.2), seed=1)(scores, masks)[name])
    other = Shuffled(Global(0.2), seed=2)(scores, masks)
    assert any(not torch.equal(other[n], shuffled.masks[n]) for n in masks)
    assert not Shuffled(Global(0.2)).monotone
    with pytest.raises(ValueError, match="seed must be"):
        Shuffled(Global(0.2), seed=-1)
