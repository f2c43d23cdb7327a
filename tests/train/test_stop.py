"""Stopping rules on histories written by hand, the golden decisions, and what the rules measure."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from sparsight.measure.pq import pq_index
from sparsight.model.loss import cross_entropy
from sparsight.model.masks import dense
from sparsight.model.names import named
from sparsight.numerics.select import keep_largest
from sparsight.pruning.allocate.fixed import Shrink
from sparsight.pruning.restart import carry_on, rewind
from sparsight.pruning.score.magnitude import Magnitude
from sparsight.pruning.score.snip import SNIP
from sparsight.recipes import incop, lottery, oneshot, sap
from sparsight.recipes.incop import PRESETS
from sparsight.records.identity import describe
from sparsight.records.record import LevelRecord
from sparsight.runs.level import Level
from sparsight.runs.recipe import Recipe
from sparsight.runs.run import run
from sparsight.runs.search import Listed, Until
from sparsight.train.observation import Observation
from sparsight.train.optimizers import NesterovSGD
from sparsight.train.plan import TrainingPlan
from sparsight.train.stop import (
    AccuracyRecovery,
    AllOf,
    AnyOf,
    AtLeast,
    Context,
    FixedEpochs,
    FlowPlateau,
    GradientConsistent,
    InformationConsistent,
    LossPlateau,
    MaskStable,
    Patience,
    PQIStable,
    Reference,
    StoppingRule,
    jaccard_distance,
    named_rule,
)
from sparsight.train.stop.flows import _Consistent
from sparsight.train.stop.thresholds import changes, met
from sparsight.types import Split
from sparsight.zoo.data import digits
from sparsight.zoo.networks import mlp

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "infcop_golden.json").read_text())
LOGIC = GOLDEN["G8_stopping_logic"]
G1 = GOLDEN["G1_relu_mlp_4_5_3_3"]


def history(**columns: list) -> list[Observation]:
    """One observation an epoch. Columns are fields of it; a name that is none goes into `values`."""
    fields = {f.name for f in dataclasses.fields(Observation)}
    found = []
    for i, row in enumerate(zip(*columns.values(), strict=True), start=1):
        given = dict(zip(columns, row, strict=True))
        known = {k: v for k, v in given.items() if k in fields}
        rest = {k: v for k, v in given.items() if k not in fields and v is not None}
        found.append(Observation(**{"epoch": float(i), "step": 10 * i, "values": rest, **known}))
    return found


def between(how: Recipe):
    """The rule of the levels between the first and the last."""
    return how.levels.level.train.stop


def stops_at(rule, seen: list[Observation]) -> int | None:
    """The first evaluation, counted from 1, at which the rule stops."""
    return next((n for n in range(1, len(seen) + 1) if rule.stop(seen[:n]) is not None), None)


# -- golden decisions ------------------------------------------------------------------------------------------

IF, GF = InformationConsistent(0.11), GradientConsistent(0.5)


def sequence(name: str) -> list[float]:
    return [math.nan if x is None else x for x in LOGIC["sequences"][name]]


@pytest.mark.parametrize("case", [c for c in LOGIC["cases"] if c["kind"] == "closeness"], ids=str)
@pytest.mark.parametrize("how", ["field", "combinator"])
def test_golden_closeness(case, how):
    patience = case["patience"]
    if how == "field":
        rule = InformationConsistent(case["eps"], patience=patience)
        seen = history(**{f"distance:{rule.name}": sequence(case["sequence"])})
    else:
        inner = GradientConsistent(case["eps"])
        rule = Patience(inner, patience)
        seen = history(**{f"distance:{inner.name}": sequence(case["sequence"])})
    assert stops_at(AtLeast(rule, evaluations=case["min_evals"]), seen) == case["stop_at"]


@pytest.mark.parametrize("case", [c for c in LOGIC["cases"] if c["kind"] == "plateau"], ids=str)
def test_golden_plateau(case):
    """A scalar's plateau: the PQ index is one; a flow's distance to the evaluation before is recorded as such."""
    index = PQIStable(tol=case["tol"], patience=case["patience"])
    values = sequence(case["sequence"])
    assert stops_at(index, history(**{f"value:{index.name}": values})) == case["stop_at"]
    flow = FlowPlateau(tol=case["tol"], patience=case["patience"], norm="l2")
    assert stops_at(flow, history(**{f"distance:{flow.name}": changes(values)})) == case["stop_at"]


@pytest.mark.parametrize("case", [c for c in LOGIC["cases"] if c["kind"].endswith("_of")], ids=str)
def test_golden_combinations(case):
    assert case["sequences"] == ["S1<0.11", "G2<0.5"]
    rule = {"all_of": AllOf, "any_of": AnyOf}[case["kind"]](IF, GF)
    seen = history(**{f"distance:{IF.name}": sequence("S1"), f"distance:{GF.name}": sequence("G2")})
    assert stops_at(rule, seen) == case["stop_at"]


def test_all_of_asks_for_the_same_evaluation_and_any_of_for_one():
    near, far = 0.05, 0.9
    seen = history(**{f"distance:{IF.name}": [near, far, near], f"distance:{GF.name}": [far, near, near]})
    assert stops_at(AllOf(IF, GF), seen) == 3
    assert stops_at(AnyOf(IF, GF), seen) == 1
    assert "information" in AnyOf(IF, GF).stop(seen[:1])
    assert "gradient" in AnyOf(IF, GF).stop(seen[:2])
    assert AllOf(IF, GF).stop(seen).count("less than") == 2
    assert AllOf((IF, GF)[0], (IF, GF)[1]) == AllOf(rules=(IF, GF))
    with pytest.raises(ValueError, match="at least one rule"):
        AllOf()


# -- golden distances through the rules --------------------------------------------------------------------------


def golden_net(masked: bool) -> nn.Module:
    layers = []
    for i, (w, b) in enumerate(zip(G1["weights"], G1["biases"], strict=True)):
        weight = torch.tensor(w, dtype=torch.float64)
        layer = nn.Linear(weight.shape[1], weight.shape[0], dtype=torch.float64)
        mask = torch.tensor(G1["masks"][i], dtype=torch.bool) if masked else torch.ones_like(weight, dtype=torch.bool)
        with torch.no_grad():
            layer.weight.copy_(weight * mask)
            layer.bias.copy_(torch.tensor(b, dtype=torch.float64))
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def golden_context(masked: bool = True, reference_masked: bool = False, batch: int = 4) -> Context:
    x, y = torch.tensor(G1["inputs"], dtype=torch.float64), torch.tensor(G1["labels"])
    net, other = golden_net(masked), golden_net(reference_masked)
    masks = {name: named(net)[name].detach() != 0 for name in dense(net)}
    whole = {name: named(other)[name].detach() != 0 for name in dense(other)}
    probe = tuple((x[i : i + batch], y[i : i + batch]) for i in range(0, len(x), batch))
    reference = Reference(0, other.state_dict(), whole)
    return Context(net, masks, 1, Observation(1.0, 1), probe=probe, references={"warmup": reference})


APART = G1["distance_pruned_vs_dense"]
INFORMATION = [
    ("signed", "l2", "signed_mean", "l2"),
    ("abs", "l2", "abs_mean", "l2"),
    ("rms", "l2", "rms", "l2"),
    ("rms", "linf", "rms", "linf"),
    ("rms", "relative", "rms", "rel_l2"),
    ("matrix", "relative", "rho_matrix", "mean_rel_fro"),
]


@pytest.mark.parametrize(("reduction", "norm", "key", "how"), INFORMATION)
@pytest.mark.parametrize("site", ["pre", "post_act"])
def test_golden_information_flips_exactly_at_the_distance(reduction, norm, key, how, site):
    expected = APART["pre" if site == "pre" else "post"][key][how]
    for factor, reason in ((1 + 1e-6, True), (1 - 1e-6, False)):
        rule = InformationConsistent(expected * factor, reduction=reduction, norm=norm, reference="warmup", site=site)
        context = golden_context()
        values, _ = rule.measure(context, {})
        assert values[f"distance:{rule.name}"] == pytest.approx(expected, rel=1e-9)
        assert values[f"threshold:{rule.name}"] == rule.eps
        seen = dataclasses.replace(context.observation, values=values)
        assert (rule.stop([seen]) is not None) is reason


@pytest.mark.parametrize(
    ("statistic", "norm", "expected"),
    [
        ("norm", "l2", APART["gf"]["full_gradient.norm"]["l2"]),
        ("norm", "relative", APART["gf"]["full_gradient.norm"]["rel_l2"]),
        ("mean_abs", "l2", APART["gf"]["full_gradient.mean_abs"]["l2"]),
        ("literal", "l2", APART["gf"]["reference_literal_norm_now_minus_meanabs_reference"]["l2"]),
    ],
)
def test_golden_gradients_flip_exactly_at_the_distance(statistic, norm, expected):
    for factor, reason in ((1 + 1e-6, True), (1 - 1e-6, False)):
        rule = GradientConsistent(expected * factor, statistic=statistic, norm=norm, reference="warmup")
        context = golden_context()
        values, _ = rule.measure(context, {})
        assert values[f"distance:{rule.name}"] == pytest.approx(expected, rel=1e-9)
        assert (rule.stop([dataclasses.replace(context.observation, values=values)]) is not None) is reason


def test_a_network_is_at_distance_0_from_itself_but_for_the_published_mistake():
    for rule in (InformationConsistent(reference="warmup"), GradientConsistent(reference="warmup")):
        values, _ = rule.measure(golden_context(masked=False), {})
        assert values[f"distance:{rule.name}"] == 0.0
    literal = GradientConsistent(0.5, statistic="literal", norm="l2", reference="warmup")
    values, _ = literal.measure(golden_context(masked=False), {})
    assert values[f"distance:{literal.name}"] == pytest.approx(2.497371, abs=1e-6)
    with pytest.raises(ValueError, match=r"at least 2 probe batches"):
        literal.measure(golden_context(batch=12), {})


def test_the_readme_threshold_accepts_what_the_intended_one_refuses():
    """At 1.0 the published rules fire on the golden pair at once; the literal one, never."""
    for preset in ("paper", "readme", "ours"):
        how = incop(variant="both", accuracy_exit=False, preset=preset, reference="warmup")
        rule = between(how)
        context = golden_context()
        values, _ = rule.measure(context, {})
        near = {r: values[f"distance:{r.name}"] < r.eps for r in rule.rules}
        assert (rule.stop([dataclasses.replace(context.observation, values=values)]) is not None) is all(near.values())
    assert between(incop(variant="gf", preset="literal")).rules[0].eps < 2.04


# -- the plain rules -----------------------------------------------------------------------------------------------


def test_fixed_epochs():
    seen = history(train_loss=[1.0] * 4)
    assert stops_at(FixedEpochs(3), seen) == 3
    assert stops_at(FixedEpochs(), seen) is None
    assert FixedEpochs(0.5).stop([Observation(0.5, 1)]) == "trained 0.5 of 0.5 epochs"
    thirds = [Observation(sum([0.1] * n), n) for n in range(1, 4)]
    assert stops_at(FixedEpochs(0.3), thirds) == 3  # 0.1 + 0.1 + 0.1 is not 0.3
    with pytest.raises(ValueError, match="epochs must be finite and greater than 0, got 0"):
        FixedEpochs(0)


def test_accuracy_recovery():
    seen = history(validation_accuracy=[0.5, 0.8, None, 0.9, 0.85])
    assert stops_at(AccuracyRecovery(target=0.9), seen) == 4  # equality is enough
    assert stops_at(AccuracyRecovery(target=0.95), seen) is None
    rule = AccuracyRecovery(fraction=0.95, margin=0.01, reference="parent")
    there = Reference(3, {}, {}, accuracy=0.9)
    context = Context(nn.Linear(1, 1), {}, 4, seen[0], references={"parent": there, "dense": Reference(0, {}, {}, 0.1)})
    values, memory = rule.measure(context, {})
    assert memory == {}
    target = pytest.approx(0.95 * 0.9 - 0.01)
    assert values == {rule.name: 0.9, "threshold:validation accuracy, 0.95 of parent - 0.01": target}
    judged = [dataclasses.replace(o, values=values) for o in seen]
    assert stops_at(rule, judged) == 4
    assert rule.stop(judged[:4]) == "validation accuracy 90.00 % has reached 84.50 % (the previous level)"
    other = AccuracyRecovery(fraction=0.9, reference="parent")  # decides by the same record with another fraction
    assert stops_at(other, judged) == 4
    assert stops_at(dataclasses.replace(other, fraction=0.85), judged) == 2
    assert rule.measure(dataclasses.replace(context, references={}), {})[0] == {}
    assert stops_at(rule, seen) is None  # no reference, no stop
    with pytest.raises(ValueError, match="reference must be one of .*, got 'dens'"):
        AccuracyRecovery(reference="dens")
    for wrong in ({"target": "0.9"}, {"target": math.nan}, {"margin": -0.1}, {"margin": None}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be in"):
            AccuracyRecovery(**wrong)


def test_two_accuracy_rules_do_not_take_each_others_threshold():
    """Dense 0.90: the looser of the two is met first, whichever was measured last."""
    loose, strict = AccuracyRecovery(fraction=0.9), AccuracyRecovery()
    context = Context(nn.Linear(1, 1), {}, 1, Observation(1.0, 1), references={"dense": Reference(0, {}, {}, 0.9)})
    for either, both in ((AnyOf(loose, strict), AllOf(loose, strict)), (AnyOf(strict, loose), AllOf(strict, loose))):
        values, _ = either.measure(context, {})
        seen = [dataclasses.replace(o, values=values) for o in history(validation_accuracy=[0.8, 0.82, 0.85, 0.9])]
        assert stops_at(either, seen) == 2
        assert stops_at(both, seen) == 4


def test_what_is_no_rule_is_refused():
    for given in ("mask-stable", MaskStable, {0: MaskStable()}):
        with pytest.raises(TypeError, match="must be a stopping rule"):
            AllOf(given)
        with pytest.raises(TypeError, match="stop must be a stopping rule"):
            Level(train=TrainingPlan(stop=given))
    with pytest.raises(TypeError, match="stop must be a stopping rule.*got 'mask-stable'"):
        small(stop="mask-stable")
    with pytest.raises(TypeError, match="got <class .*MaskStable.*: it is a class, not a rule"):
        small(stop=MaskStable)
    with pytest.raises(ValueError, match="epochs must be finite and greater than 0, got '3'"):
        FixedEpochs("3")


class OfOnesOwn:
    """What a rule must have, but for what `without` says."""

    def __init__(self, *without: str) -> None:
        has = {"needs": frozenset(), "sources": (), "measure": self._measure, "stop": lambda history: None}
        self.__dict__.update({name: value for name, value in has.items() if name not in without})

    @staticmethod
    def _measure(context, memory):
        return {}, memory


@pytest.mark.parametrize("lacks", [("needs",), ("sources",), ("needs", "sources"), ("measure",), ("stop",)])
def test_a_rule_that_lacks_a_member_is_refused_when_the_plan_is_made(lacks):
    match = f"it lacks {', '.join(lacks)}; your own rule must inherit from sparsight.train.stop.StoppingRule"
    with pytest.raises(TypeError, match=f"stop must be a stopping rule.*{match}"):
        TrainingPlan(stop=OfOnesOwn(*lacks))
    for several in (AllOf, AnyOf):
        with pytest.raises(TypeError, match=f"each rule of {several.__name__} must be a stopping rule.*{match}"):
            several(FixedEpochs(), OfOnesOwn(*lacks))
    assert TrainingPlan(stop=OfOnesOwn()).epochs == 3, "what has them all need not inherit"


def test_a_rule_that_inherits_has_what_it_does_not_write():
    class Twice(StoppingRule):
        def measure(self, context, memory):
            return {}, memory

        def stop(self, history):
            return "seen twice" if len(history) > 1 else None

    assert (Twice().needs, Twice().sources) == (frozenset(), ())
    assert [record.reason for record in records(small(stop=Twice(), levels=1, epochs=3))] == ["seen twice"] * 2


def test_loss_plateau():
    falling = [1.0, 0.9, 0.8999, 0.8998, 0.7, 0.6999, 0.75, 0.6998]
    seen = history(validation_loss=falling)
    assert stops_at(LossPlateau(1e-3, 1), seen) == 3
    assert stops_at(LossPlateau(1e-3, 2), seen) == 4
    assert stops_at(LossPlateau(1e-3, 3), seen) == 8  # a rise counts as no improvement, and what follows it is not one
    assert stops_at(LossPlateau(1e-3, 2), history(validation_loss=[0.5, math.nan, 0.5, 0.5])) == 4
    assert stops_at(LossPlateau(1e-3, 1), history(validation_loss=[None, None, None])) is None
    assert stops_at(LossPlateau(1e-3, 1), history(validation_loss=[0.0, 0.0])) == 2
    rule = LossPlateau(1e-3, 2)
    for n in range(1, len(seen) + 1):
        found, _ = rule.measure(Context(nn.Linear(1, 1), {}, 1, seen[n - 1], history=seen[: n - 1]), {})
        assert ("distance:validation loss, improvement" in found) is (n > 1)


def rule_of(search: Until | Listed, number: int, last: bool = False):
    """What may end level `number`: the last one keeps a weight in ten, the others all but a few."""
    levels = [level_of(n, 1000 - n) for n in range(number)]
    level = search.next(levels)
    return search.after_pruning(levels, level, 100 if last else 1000 - number, 1000).train.stop


def level_of(number: int, kept: int) -> LevelRecord:
    return LevelRecord(
        level=number, role="level", id=str(number), parent=None, operation={}, kept=kept, total=1000, layers=(),
        pq_pairs=(), pq=(), groups=(), floors=(), collapsed=(), observations=(), epochs=1.0, steps=1,
    )  # fmt: skip


def test_every_level_has_its_own_rule():
    def level(*rounds, stop):
        return Level(rounds, train=TrainingPlan(stop=stop))

    prune = Shrink(0.2)
    search = Until(
        level(prune, stop=IF), density=0.1, first=level(stop=FixedEpochs()), last=level(prune, stop=FixedEpochs(7))
    )
    assert [rule_of(search, n) for n in range(5)] == [FixedEpochs(), IF, IF, IF, IF]
    assert rule_of(search, 3, last=True) == FixedEpochs(7)
    assert search.rules == (FixedEpochs(), IF, FixedEpochs(7))
    assert Recipe(name="r", score=Magnitude(), levels=search).needs == {"probe", "dense"}
    plain = Until(level(prune, stop=IF), density=0.1)
    assert [rule_of(plain, n, last) for n, last in ((0, False), (2, False), (2, True))] == [IF, IF, IF]
    listed = [level(stop=FixedEpochs()), *(level(prune, stop=stop) for stop in (IF, GF, FixedEpochs(7)))]
    recipe = Recipe(name="r", score=Magnitude(), levels=listed)
    assert [rule_of(recipe.search, n) for n in range(4)] == [FixedEpochs(), IF, GF, FixedEpochs(7)]
    assert rule_of(recipe.search, 1, last=True) == IF, "of a list only the place counts"
    assert recipe.needs == {"probe", "dense"}


def test_at_least_and_patience():
    seen = history(validation_accuracy=[0.9, 0.9, 0.1, 0.9, 0.9])
    rule = AccuracyRecovery(target=0.5)
    assert stops_at(Patience(rule, 2), seen) == 2
    assert stops_at(Patience(rule, 3), seen) is None
    assert stops_at(AtLeast(rule, epochs=2.5), seen) == 4
    assert stops_at(AtLeast(rule, evaluations=2), seen) == 2
    assert stops_at(AtLeast(Patience(rule, 2), evaluations=3), seen) == 5
    assert Patience(rule, 2).stop(seen[:2]).endswith("2 evaluations in a row")


def test_met_is_strict_and_wants_finite_numbers():
    assert not met([0.5], 0.5)
    assert met([0.5 - 1e-12], 0.5)
    assert not met([-math.inf], 0.5)
    assert not met([math.nan, 0.1], 0.5, 2)
    assert not met([0.1], 0.5, 2)
    assert changes([]) == []


# -- what the weights say ------------------------------------------------------------------------------------------


def weights_context(net: nn.Module, masks, seen=(), **more) -> Context:
    return Context(net, masks, 1, Observation(1.0, 1), history=seen, score=Magnitude(), rounds=(Shrink(0.5),), **more)


def test_pqi_stable_measures_the_alive_weights():
    net = mlp(input_shape=(1, 8, 8), classes=10, seed=0)
    full = dense(net)
    masks = keep_largest(Magnitude()(net, full, ()), full, 5000)[0]
    rule = PQIStable(1.0, 2.0, tol=1e-4)
    first, _ = rule.measure(weights_context(net, masks), {})
    assert first[f"value:{rule.name}"] == pq_index({n: named(net)[n] for n in masks}, 1.0, 2.0, mask=dict(masks))
    assert f"distance:{rule.name}, change" not in first
    seen = [Observation(1.0, 1, values=first)]
    with torch.no_grad():
        net.fc1.weight.mul_(1.5)
    second, _ = rule.measure(weights_context(net, masks, seen), {})
    moved = abs(second[f"value:{rule.name}"] - first[f"value:{rule.name}"])
    assert second[f"distance:{rule.name}, change"] == moved > 1e-4


def test_mask_stable_compares_the_masks_that_would_be_cut():
    net = nn.Sequential(nn.Linear(4, 1, bias=False), nn.Linear(1, 2))
    masks = dense(net, exclude=("1.weight",))
    rule = MaskStable(tol=0.5, patience=1)

    def at(values: list[float], memory):
        with torch.no_grad():
            net[0].weight.copy_(torch.tensor([values]))
        return rule.measure(weights_context(net, masks), memory)

    found, memory = at([1.0, 2.0, 3.0, 4.0], {})
    assert "distance:mask to be cut" not in found
    assert memory["mask:0.weight"].tolist() == [[False, False, True, True]]
    found, memory = at([1.0, 4.0, 3.0, 2.0], memory)  # kept: 2, 3 before; 1, 2 now
    assert found["distance:mask to be cut"] == pytest.approx(1 - 1 / 3)
    found, _ = at([1.0, 5.0, 4.0, 2.0], memory)
    assert found["distance:mask to be cut"] == 0.0
    assert rule.stop([Observation(1.0, 1, values=found)]) is not None
    nothing = dataclasses.replace(weights_context(net, masks), rounds=())
    assert rule.measure(nothing, {}) == ({}, {})


@pytest.mark.parametrize(
    "several", [AllOf(MaskStable(), FixedEpochs(9)), AnyOf(FixedEpochs(9), MaskStable(), PQIStable())]
)
def test_a_rule_among_others_keeps_its_own_memory(several):
    """What a rule without memory hands back must not undo what the one before it remembers."""
    net = nn.Sequential(nn.Linear(4, 1, bias=False), nn.Linear(1, 2))
    masks = dense(net, exclude=("1.weight",))
    memory, distances = {}, []
    for values in ([1.0, 2.0, 3.0, 4.0], [1.0, 4.0, 3.0, 2.0], [1.0, 5.0, 4.0, 2.0]):
        with torch.no_grad():
            net[0].weight.copy_(torch.tensor([values]))
        found, memory = several.measure(weights_context(net, masks), memory)
        distances.append(found.get("distance:mask to be cut"))
    assert distances == [None, pytest.approx(1 - 1 / 3), 0.0]


def test_what_a_scorer_sees_for_a_hypothetical_mask_is_counted():
    net = mlp(input_shape=(1, 8, 8), classes=10, seed=0)
    masks, data = dense(net), digits().train
    batches = [(data.x[:30], data.y[:30]), (data.x[30:50], data.y[30:50])]
    context = dataclasses.replace(weights_context(net, masks), score=SNIP(), examples=batches)
    MaskStable().measure(context, {})
    assert context.cost == {"scored": 50}
    without = weights_context(net, masks)
    MaskStable().measure(without, {})
    assert without.cost == {}


def test_jaccard_distance():
    a = {"x": torch.tensor([True, True, False]), "y": torch.tensor([True])}
    b = {"x": torch.tensor([True, False, True]), "y": torch.tensor([True])}
    assert jaccard_distance(a, b) == 0.5
    assert jaccard_distance(a, a) == 0.0
    none = {"x": torch.zeros(3, dtype=torch.bool)}
    assert jaccard_distance(none, none) == 0.0
    assert jaccard_distance(none, {"x": torch.ones(3, dtype=torch.bool)}) == 1.0
    with pytest.raises(ValueError, match="the same names and shapes"):
        jaccard_distance(a, none)


def test_a_flow_is_measured_once_however_many_rules_ask_and_the_cost_is_counted():
    context = golden_context()
    both = AllOf(
        InformationConsistent(reference="warmup"), FlowPlateau(), GradientConsistent(reference="warmup"),
        AtLeast(FlowPlateau("gradient"), 1),
    )  # fmt: skip
    _, memory = both.measure(context, {})
    # each flow of both networks; those of the present one from the same passes
    assert context.cost == {"forward": 3 * 12, "backward": 2 * 12}
    later = dataclasses.replace(context, history=(context.observation,), flows={}, cost={})
    values, _ = both.measure(later, memory)
    assert later.cost == {"forward": 12, "backward": 12}  # the reference's are known
    assert values[f"distance:{FlowPlateau().name}"] == 0.0
    apart = dataclasses.replace(later, loss=lambda net, batch: cross_entropy(net, batch), flows={}, cost={})
    same, _ = both.measure(apart, memory)
    assert apart.cost == {"forward": 2 * 12, "backward": 12}  # a loss that may be anything
    assert same == values


def test_plateau_of_matrices_is_that_of_the_units():
    plateau = FlowPlateau(reduction="matrix")
    _, memory = plateau.measure(golden_context(masked=False), {})
    values, _ = plateau.measure(golden_context(masked=True), memory)
    assert values[f"distance:{plateau.name}"] == pytest.approx(APART["pre"]["rho_matrix"]["mean_rel_fro"], rel=1e-9)


# -- in a run --------------------------------------------------------------------------------------------------------


HALVE = (Shrink(0.5),)


def training(**changes) -> TrainingPlan:
    return dataclasses.replace(TrainingPlan(batch_size=100, epochs=2), **changes)


def small(*, levels: int = 3, rewind_epoch: int = 0, probes: int | None = 200, **plan) -> Recipe:
    """Half of the weights go at each level; `plan` are fields of the training of all of them, level 0 included."""
    return of(Until(Level(HALVE, train=training(**plan)), levels=levels), rewind_epoch=rewind_epoch, probes=probes)


def of(levels, **changes) -> Recipe:
    return Recipe(**{"name": "test", "score": Magnitude(), "levels": levels, "probes": 200, **changes})


def records(how: Recipe):
    return [r.record for r in run(how, mlp(input_shape=(1, 8, 8), classes=10, seed=0), digits(), device="cpu")]


def test_the_references_are_who_they_should_be():
    kinds = ("warmup", "dense", "parent", "best")
    never = AnyOf(*(AccuracyRecovery(fraction=2.0, reference=kind) for kind in kinds))
    levels = records(small(stop=never, rewind_epoch=1))
    ends = [r.validation_accuracy for r in levels]
    expected = {
        "warmup": [levels[0].observations[0].validation_accuracy] * 3,
        "dense": [ends[0]] * 3,
        "parent": ends[:3],
        "best": [max(ends[: n + 1]) for n in range(3)],
    }
    assert all(o.values == {} for o in levels[0].observations)  # nothing to compare the first level with
    for kind in kinds:
        name = f"reference:validation accuracy of {kind}"
        assert [r.observations[-1].values[name] for r in levels[1:]] == pytest.approx(expected[kind]), kind


def test_a_network_that_cannot_be_measured_is_refused_before_it_is_trained():
    """Its one layer has no next one; level 0, which no rule acts on, is not trained first."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    for name in ("information-consistent", "flow-plateau", "both-consistent"):
        levels = run(small(stop=named_rule(name)), model, digits(), device="cpu")
        with pytest.raises(ValueError, match="information flow needs at least two layers"):
            next(iter(levels))


def test_small_data_are_a_probe_as_a_whole():
    """digits with 300 training images, where 1024 is the number of probes."""
    data = digits()
    some = dataclasses.replace(data, train=Split(data.train.x[:300], data.train.y[:300]))
    how = small(stop=named_rule("information-consistent"), probes=None, levels=2)
    model = mlp(input_shape=(1, 8, 8), classes=10, seed=0)
    costs = [r.record.observations[-1].values for r in run(how, model, some, device="cpu")]
    assert costs[1]["cost:forward samples"] in (300.0, 600.0)  # itself, and the dense network at the first evaluation
    with pytest.raises(ValueError, match="probe must be 1 to 300, .* got 301"):
        list(run(dataclasses.replace(how, probes=301), model, some, device="cpu"))


def test_dead_networks_are_not_alike():
    """All units are dead in both: their distance would be 0."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    nn.init.zeros_(model[0].weight), nn.init.zeros_(model[1].weight)
    there = Reference(0, {k: v.clone() for k, v in model.state_dict().items()}, dense(model))
    seen = Observation(1.0, 1)
    batches = [(torch.randn(8, 3), torch.zeros(8, dtype=torch.long))]
    context = Context(model, dense(model), 1, seen, probe=batches, references={"dense": there})
    rule = InformationConsistent()
    with pytest.warns(RuntimeWarning, match="at level 1: the flow of one of the two networks is zero or not finite"):
        values, _ = rule.measure(context, {})
    assert math.isnan(values[f"distance:{rule.name}"])
    assert rule.stop([dataclasses.replace(seen, values=values)]) is None


def test_rules_measure_the_pairs_that_they_are_given():
    """A layer that is reused has no flow; pairs without it have."""
    torch.manual_seed(0)
    again = nn.Linear(4, 4)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), again, again, nn.Linear(4, 2))
    context = Context(model, dense(model), 1, Observation(1.0, 1), probe=[(torch.randn(8, 3), None)])
    for make in (InformationConsistent, FlowPlateau):
        with pytest.raises(ValueError, match="'2' runs more than once.*give `pairs` without it"):
            make().measure(context, {})
        values, _ = make(pairs=[("0", "4")]).measure(context, {})
        assert [key for key in values if key.startswith("value:")] == [
            "value:information flow (rms, pre; 0 > 4), 0 > 4"
        ]


@pytest.mark.parametrize("recipe", [lottery, oneshot, sap])
@pytest.mark.parametrize("until", ["accuracy", "pq-minimum"])
def test_a_search_whose_last_level_is_not_known_trains_all_in_full(recipe, until):
    recipe(until=until)
    with pytest.raises(ValueError, match=f"stop='mask-stable' needs until='density', got '{until}'.*train in full"):
        recipe(until=until, stop="mask-stable")
    if recipe is not oneshot:
        with pytest.raises(ValueError, match=f"middle_epochs=1 needs until='density', got '{until}'.*train in full"):
            recipe(until=until, middle_epochs=1)


def test_evaluating_at_every_step_is_not_below_a_thousandth_of_an_epoch():
    with pytest.raises(ValueError, match=r"evaluate_every must be finite and at least 0.001, got 1e-20"):
        small(evaluate_every=1e-20)


def test_a_level_before_itself_is_at_distance_0():
    """Restarted where its parent ended, untrained (learning rate 0) and unpruned, a network has its parent's flow."""
    rule = AllOf(InformationConsistent(reference="parent"), GradientConsistent(reference="parent"))
    plan = training(stop=rule, epochs=1, optimizer=NesterovSGD(lr=0.0))
    how = of((Level(train=plan), Level((Shrink(0.0),), carry_on, plan)))
    values = records(how)[1].observations[0].values
    assert [v for k, v in values.items() if k.startswith("distance:")] == [0.0, 0.0]


def test_gf_ema_costs_no_pass_and_changes_no_bit():
    plain = records(small())
    watched = records(small(stop=GradientConsistent(1e-9, statistic="ema")))
    assert [r.id for r in plain] == [r.id for r in watched]
    last = watched[2].observations[-1].values
    assert not any(key.startswith("cost:") for key in last)
    start = "value:gradient flow (ema), "
    reference = [v for k, v in watched[0].observations[-1].values.items() if k.startswith(start)]
    mine = [v for k, v in last.items() if k.startswith(start)]
    assert len(mine) == 3
    gap = math.dist(mine, reference) / math.hypot(*reference)
    assert last["distance:gradient flow (ema), relative to dense"] == pytest.approx(gap)
    with pytest.raises(ValueError, match="statistic='ema' needs reference"):
        GradientConsistent(statistic="ema", reference="warmup")


def test_measuring_every_rule_changes_no_bit_of_the_run():
    everything = AllOf(
        AccuracyRecovery(fraction=2.0), LossPlateau(1e-9), PQIStable(tol=1e-12), MaskStable(tol=1e-12),
        InformationConsistent(1e-12), GradientConsistent(1e-12), FlowPlateau(tol=1e-12),
    )  # fmt: skip
    assert [r.id for r in records(small(stop=everything))] == [r.id for r in records(small())]


def test_the_last_level_has_its_own_rule():
    short, whole = Level(HALVE, train=training(stop=FixedEpochs(1))), Level(HALVE, train=training())
    ends = {"last": whole, "first": Level(train=training())}
    assert [r.epochs for r in records(of(Until(short, levels=3, **ends)))] == [2, 1, 1, 2]
    assert [r.epochs for r in records(of(Until(short, density=0.3, **ends)))] == [2, 1, 2]
    assert [r.epochs for r in records(of((ends["first"], short, whole)))] == [2, 1, 2]
    found = records(of(Until(short, levels=3, last=whole, first=Level(train=training(epochs=3)))))
    assert [r.epochs for r in found] == [3, 1, 1, 2]
    assert [r.operation["epochs"] for r in found] == [3, 2, 2, 2]
    assert found[1].operation["stop"] == {"type": "FixedEpochs", "epochs": 1}
    assert found[3].operation["stop"] == {"type": "FixedEpochs", "epochs": None}


def test_levels_before_the_last_may_have_a_budget_a_schedule_and_a_restart_of_their_own():
    level, last = Level(HALVE, carry_on, training(epochs=1)), Level(HALVE, rewind, training(epochs=3))
    found = records(of(Until(level, levels=3, last=last, first=Level(train=training(epochs=2)))))
    assert [level.epochs for level in found] == [2, 1, 1, 3]
    assert [level.operation["epochs"] for level in found] == [2, 1, 1, 3]
    restarts = [level.operation["restart"] for level in found[1:]]
    assert [describe(carry_on), describe(carry_on), describe(rewind)] == restarts
    # each level comes to the end of its own cosine: the last step's rate is small beside the first's
    assert all(level.observations[-1].learning_rate < 0.1 * 0.1 for level in found)


def test_a_rule_against_the_warm_up_needs_one():
    with pytest.raises(ValueError, match="rewind_epoch must be at least 1"):
        small(stop=InformationConsistent(reference="warmup"))
    for wrong in ({"evaluate_every": 0.0}, {"probes": 0}, {"epochs": -1}, {"batch_size": 0}, {"clip": 0.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            small(**wrong)


# -- recipes ---------------------------------------------------------------------------------------------------------


def test_incop_is_the_published_setting():
    how = incop(variant="both")
    first, level, last = how.levels.first, how.levels.level, how.levels.last
    assert (first.train.epochs, how.rewind_epoch, level.train.epochs, last.train.epochs) == (20, 20, 40, 40)
    assert {x.train.evaluate_every for x in (first, level, last)} == {2.0}
    assert (first.prune, last.prune, last.restart) == ((), level.prune, rewind)
    flow, accuracy = between(how).rules
    information, gradient = flow.rules
    assert (information.eps, information.reduction, information.norm) == (0.11, "signed", "l2")
    assert (gradient.eps, gradient.statistic, gradient.norm) == (0.5, "norm", "l2")
    assert information.reference == gradient.reference == accuracy.reference == "warmup"
    assert first.train.stop == last.train.stop == FixedEpochs()
    assert [type(between(incop(variant=v, accuracy_exit=False))) for v in ("if", "gf", "both")] == [
        InformationConsistent, GradientConsistent, AllOf,
    ]  # fmt: skip
    readme = between(incop(variant="both", preset="readme")).rules[0].rules
    assert [rule.eps for rule in readme] == [1.0, 1.0]
    assert between(incop(variant="gf", preset="literal")).rules[0].statistic == "literal"
    ours = between(incop(variant="gf", preset="ours", statistic="ema", eps_gf=0.1)).rules[0]
    assert ours == GradientConsistent(0.1, statistic="ema", norm="relative", reference="dense")
    for preset, arguments in PRESETS.items():
        assert incop(variant="both", preset=preset) == incop(variant="both", **arguments)
    with pytest.raises(ValueError, match="needs reference 'dense', 'parent' or 'best'"):
        incop(variant="gf", statistic="ema")
    assert {type(incop(prune=p).levels.level.prune[0]).__name__ for p in ("sap", "lottery")} == {"SAP", "Shrink"}
    with pytest.raises(ValueError, match="warmup must be at least 1, got 0"):
        incop(warmup=0, reference="dense")
    for wrong in ({"variant": "fi"}, {"prune": "random"}, {"preset": "mine"}):
        with pytest.raises(ValueError, match="must be (one of|.if.|.lottery.)"):
            incop(**wrong)


@pytest.mark.parametrize(("variant", "prune"), [*itertools.product(("if", "gf", "both"), ("sap", "lottery"))])
def test_incop_runs(variant, prune):
    how = incop(
        variant=variant,
        prune=prune,
        warmup=2,
        epochs=3,
        evaluate_every=1.0,
        levels=2,
        lr=0.05,
        probes=256,
        control=False,
    )
    found = records(how)
    assert found[0].epochs == 2
    assert found[-1].epochs == 3
    assert found[1].epochs < 3
    assert re.search(r"less than|has reached", found[1].reason)


@pytest.mark.parametrize("recipe", [sap, lottery, oneshot])
def test_stop_on_the_other_recipes(recipe):
    assert recipe().search.rules == (FixedEpochs(),) * 3
    how = recipe(stop="mask-stable", evaluate_every=0.5)
    assert how.search.rules == (FixedEpochs(), MaskStable(), FixedEpochs()), "the first and the last level are whole"
    assert {level.train.evaluate_every for level in (how.levels.first, how.levels.level, how.levels.last)} == {0.5}


@pytest.mark.parametrize("recipe", [sap, lottery])
def test_levels_between_may_be_short_and_carried_on(recipe):
    plain = recipe().levels
    assert {level.train.epochs for level in (plain.first, plain.level, plain.last)} == {plain.level.train.epochs}
    assert plain.level.restart is plain.last.restart is rewind
    how = recipe(epochs=3, middle_epochs=1, carry_on=True, target_density=0.0, levels=2, control=False)
    assert how.levels.level.restart is how.levels.last.restart is carry_on
    for wrong in (0, -1):
        with pytest.raises(ValueError, match=f"middle_epochs must be at least 1, got {wrong}"):
            recipe(middle_epochs=wrong)
    assert [level.epochs for level in records(how)] == [3, 1, 3]
    with pytest.raises(ValueError, match=r"rewind_epoch must be 0 .*, got 2"):
        recipe(carry_on=True, rewind_epoch=2)


@pytest.mark.parametrize("recipe", [sap, lottery])
def test_the_default_rule(recipe):
    """A third of the epochs, until recovered, where nothing is rewound; the whole budget elsewhere."""

    def told(**given) -> tuple:
        levels = recipe(epochs=9, **given).levels
        plan = levels.level.train
        for end in (levels.first.train, levels.last.train):
            assert (end.epochs, end.stop, end.evaluate_every) == (9, FixedEpochs(), plan.evaluate_every)
        return plan.epochs, plan.stop, plan.evaluate_every

    whole = (9, FixedEpochs(), 1.0)
    recovered = named_rule("recovered")
    assert told() == whole
    assert told(carry_on=True) == (3, recovered, 0.5)
    assert told(carry_on=True, evaluate_every=0.25) == (3, recovered, 0.25)
    assert recipe(epochs=10, carry_on=True).levels.level.train.epochs == 4
    assert told(carry_on=True, stop="fixed-epochs") == whole
    assert told(carry_on=True, middle_epochs=2) == (2, FixedEpochs(), 1.0)
    assert told(carry_on=True, stop="recovered") == (9, recovered, 1.0)
    for until in ("accuracy", "pq-minimum"):
        assert told(carry_on=True, until=until) == whole


@pytest.mark.parametrize("recipe", [sap, lottery])
def test_a_run_by_the_default_rule(recipe):
    how = recipe(epochs=6, carry_on=True, target_density=0.3, control=False)
    *between, last = [level.epochs for level in records(how)][1:]
    assert len(between) > 1
    assert all(1 <= epochs <= 2 for epochs in between)
    assert last == 6


def test_every_name_is_a_rule():
    from typing import get_args

    from sparsight.train.stop import StopName

    for name in get_args(StopName):
        rule = named_rule(name)
        assert rule.needs <= {"dense", "probe", "examples"}
    with pytest.raises(ValueError, match="stop must be one of .*, got 'mask'"):
        named_rule("mask")


def test_recovered_waits_for_an_epoch_and_the_dense_accuracy_but_for_a_twentieth():
    rule = named_rule("recovered")
    before = "reference:validation accuracy of dense"
    seen = [
        Observation(e, 1, validation_accuracy=a, values={before: 0.8})
        for e, a in ((0.5, 0.9), (1.0, 0.75), (1.5, 0.76))
    ]
    assert [rule.stop(seen[:n]) is not None for n in (1, 2, 3)] == [False, False, True]
    for recipe in (sap, lottery, oneshot):
        assert recipe(stop="recovered").search.rules == (FixedEpochs(), rule, FixedEpochs())


def test_a_rule_that_compares_flows_says_which_or_cannot_be_made():
    class Bare(_Consistent):
        """A rule of no flow."""

    with pytest.raises(TypeError, match="abstract .*flow"):
        Bare()
