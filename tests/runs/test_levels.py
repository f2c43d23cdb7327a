"""What a level, a search and a recipe are made of: levels without training, and what is refused when they are made."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import nn

from sparsight.model.masks import dense, verify
from sparsight.pruning.allocate.fixed import Global, Shrink
from sparsight.pruning.restart import carry_on
from sparsight.pruning.score.magnitude import Magnitude
from sparsight.records.folder import RunFolder
from sparsight.runs.choose import AtDensity
from sparsight.runs.execute import execute
from sparsight.runs.level import Level
from sparsight.runs.recipe import Recipe, Scoring
from sparsight.runs.run import run
from sparsight.runs.search import Done, Listed, Search, Until
from sparsight.train.evaluate import evaluate
from sparsight.train.judges import classify
from sparsight.train.parallel import runtime
from sparsight.train.plan import TrainingPlan
from sparsight.train.stop import AccuracyRecovery, FixedEpochs
from sparsight.types import Allocation, Allocator
from sparsight.zoo.data import digits
from sparsight.zoo.networks import mlp

PLAN = TrainingPlan(epochs=1, batch_size=250)
AS_IT_IS = dataclasses.replace(PLAN, epochs=0)
PRETRAINED = Level(train=AS_IT_IS)


def network(seed: int = 0) -> nn.Module:
    return mlp(input_shape=(1, 8, 8), classes=10, hidden=(30,), seed=seed)


def recipe(*levels: Level, **changes) -> Recipe:
    return Recipe(**{"name": "test", "score": Magnitude(), "levels": levels, "seed": 3, **changes})


def results(how: Recipe, model: nn.Module | None = None):
    return list(run(how, model or network(), digits(), device="cpu"))


# -- a level of 0 epochs -----------------------------------------------------------------------------------------


class TestWithoutTraining:
    def test_it_is_judged_once_as_it_is(self):
        model = network()
        (result,) = results(recipe(PRETRAINED), model)
        (seen,) = result.record.observations
        worth = evaluate(model, digits().validation, classify, runtime("cpu"))
        assert (seen.epoch, seen.step, seen.train_loss) == (0.0, 0, None)
        assert (seen.validation_accuracy, seen.validation_loss) == (worth.accuracy, worth.loss)
        assert seen.reason == "evaluated without training"
        assert (result.record.epochs, result.record.steps, result.record.density) == (0.0, 0, 1.0)
        assert all(torch.equal(value, model.state_dict()[name]) for name, value in result.weights.items())

    def test_a_pruned_one_is_what_is_left_of_the_level_before(self):
        first, second = results(recipe(Level(train=PLAN), Level((Shrink(0.5),), carry_on, AS_IT_IS)))
        masks = Shrink(0.5)(Magnitude()(_with(first.weights), first.masks, ()), first.masks)
        for name, mask in masks.items():
            assert torch.equal(second.masks[name], mask)
            assert torch.equal(second.weights[name], torch.where(mask, first.weights[name], 0))
        verify(_with(second.weights), second.masks)
        assert [len(r.record.observations) for r in (first, second)] == [1, 1]
        worth = evaluate(_with(second.weights), digits().validation, classify, runtime("cpu"))
        assert second.record.validation_accuracy == worth.accuracy

    def test_the_levels_after_it_train_and_compare_with_it(self):
        how = Until(
            Level((Shrink(0.5),), carry_on, dataclasses.replace(PLAN, stop=AccuracyRecovery())), levels=1,
            first=PRETRAINED,
        )  # fmt: skip
        dense_level, pruned = results(recipe(levels=how))
        values = pruned.record.observations[-1].values
        assert values["reference:validation accuracy of dense"] == dense_level.record.validation_accuracy
        assert pruned.record.epochs == 1

    def test_the_dense_network_may_be_scored_at_every_level(self):
        model = network()
        levels = PRETRAINED, *(Level((Global(at),), carry_on, PLAN) for at in (0.5, 0.1))
        *_, last = results(recipe(*levels, score=Scoring(Magnitude(), of="dense")), model)
        half = Global(0.5)(Magnitude()(model, dense(model), ()), dense(model))
        expected = Global(0.1)(Magnitude()(model, half, ()), half)
        assert all(torch.equal(last.masks[name], mask) for name, mask in expected.items())

    def test_the_rewind_point_0_is_the_initial_network_even_if_level_0_is_pruned(self):
        model = network()
        initial = copy.deepcopy(model.state_dict())
        back = Global(0.5, recover=True)
        _, second = results(
            recipe(
                Level((Global(0.1),), train=AS_IT_IS), Level((back,), train=AS_IT_IS), rewind_epoch=0,
                score=Scoring(Magnitude(), of="init"),
            ),
            model,
        )  # fmt: skip
        for name, mask in second.masks.items():
            assert torch.equal(second.weights[name], torch.where(mask, initial[name], 0))
        with pytest.raises(ValueError, match="rewind_epoch must be at most the 0 epochs of level 0, got 1"):
            recipe(PRETRAINED, rewind_epoch=1)

    def test_the_control_still_trains(self):
        *_, control = results(recipe(PRETRAINED, control=True))
        assert (control.record.role, control.record.epochs) == ("control", 1.0)

    def test_it_resumes_wherever_it_was_interrupted(self, tmp_path):
        levels = PRETRAINED, Level((Shrink(0.5),), train=PLAN), Level((Shrink(0.5),), carry_on, AS_IT_IS)
        how = recipe(*levels, rewind_epoch=0, choose=AtDensity(0.25), control=True)
        ticks = []
        where = {"model": network(), "data": digits(), "device": "cpu"}
        whole = execute(how, **where, out=tmp_path / "whole", watch=ticks.append)
        assert [tick.kind for tick in ticks[:3]] == ["begin", "epoch", "done"]
        assert [level.epochs for level in whole.levels] == [0.0, 1.0, 0.0, 1.0]
        assert whole.record.chosen.level == 2
        for stop in range(len(ticks)):
            left = iter(range(stop + 1))

            def interrupt(event, left=left, stop=stop) -> None:
                if next(left) == stop:
                    raise KeyboardInterrupt

            folder = tmp_path / f"at{stop}"
            with pytest.raises(KeyboardInterrupt):
                execute(how, **where, out=folder, watch=interrupt)
            again = execute(how, **where, out=folder, resume=True)
            assert again.levels == whole.levels
            for name in ("levels.jsonl", "evaluation.json", "model.safetensors", "masks.safetensors"):
                assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), (stop, name)
        with RunFolder.open(tmp_path / "whole") as stored:
            assert torch.equal(stored.weights(stored.levels()[0])["fc1.weight"], network().fc1.weight.detach())


def _with(weights) -> nn.Module:
    model = network(5)
    model.load_state_dict(weights)
    return model


# -- what is refused ---------------------------------------------------------------------------------------------


class Half:
    """An allocator of one's own, but for what `without` says."""

    def __init__(self, *without: str) -> None:
        has = {"monotone": True, "plan": lambda scores, masks: Shrink(0.5).plan(scores, masks)}
        self.__dict__.update({name: value for name, value in has.items() if name not in without})

    def __call__(self, scores, masks):
        return self.plan(scores, masks).masks


class TestLevels:
    @pytest.mark.parametrize("lacks", [("plan",), ("monotone",), ("monotone", "plan")])
    def test_an_allocator_that_lacks_a_member_is_named_with_it(self, lacks):
        with pytest.raises(TypeError, match=f"not an allocator: it lacks {', '.join(lacks)}; your own allocator"):
            Level((Shrink(0.5), Half(*lacks)))

    def test_what_is_no_allocator_is_refused(self):
        with pytest.raises(TypeError, match="prune holds .*Shrink.*: it is a class"):
            Level((Shrink,))
        with pytest.raises(TypeError, match="prune holds 'sap'.*it lacks monotone, plan, __call__"):
            Level(("sap",))
        for rounds in (Shrink(0.5), [Shrink(0.5)], None):
            with pytest.raises(TypeError, match=r"prune must be a tuple of allocators, such as .Shrink.0.2.,., got"):
                Level(rounds)

    def test_one_of_ones_own_need_not_inherit(self):
        _, second = results(recipe(PRETRAINED, Level((Half(),), train=AS_IT_IS)))
        assert second.record.kept == second.record.total // 2

    def test_what_inherits_has_what_it_does_not_write(self):
        class Own(Allocator):
            def plan(self, scores, masks):
                return Allocation({name: score >= score.median() for name, score in scores.items()})

        assert Own().monotone
        _, second = results(recipe(PRETRAINED, Level((Own(),), train=AS_IT_IS)))
        assert second.record.density == pytest.approx(0.5, abs=0.01)

    @pytest.mark.parametrize("field", ["level", "last", "first"])
    def test_a_search_is_made_of_levels(self, field):
        for wrong in ((Shrink(0.2),), Shrink(0.2), TrainingPlan()):
            with pytest.raises(TypeError, match=f"{field} must be a Level, such as"):
                Until(**{"level": Level((Shrink(0.2),)), "levels": 2, field: wrong})


class Twice(Search):
    """The network as it is, and half of it, whatever comes of it."""

    def next(self, history):
        return (PRETRAINED, Level((Shrink(0.5),), train=AS_IT_IS))[len(history)] if len(history) < 2 else Done("twice")


class OfOnesOwn:
    """What a search must have, but for what `without` says."""

    def __init__(self, *without: str) -> None:
        search = Twice()
        names = ("rules", "next", "after_pruning", "upcoming")
        self.__dict__.update({name: getattr(search, name) for name in names if name not in without})


class TestSearches:
    @pytest.mark.parametrize("lacks", [("rules",), ("after_pruning",), ("rules", "after_pruning", "upcoming")])
    def test_one_that_lacks_a_member_is_named_with_it(self, lacks):
        words = f"a sequence of at least one Level, got .*: it lacks {', '.join(lacks)}; your own search"
        with pytest.raises(TypeError, match=words):
            recipe(levels=OfOnesOwn(*lacks))

    @pytest.mark.parametrize(
        "levels", [(), [], 3, None, "sap", lambda history: None, ((Shrink(0.5),),), (Shrink(0.5),)]
    )
    def test_what_is_no_search_is_refused(self, levels):
        with pytest.raises(TypeError, match="levels must be a Search or a sequence of at least one Level, got"):
            recipe(levels=levels)

    def test_a_class_is_no_search(self):
        for kind in (Until, Twice):
            with pytest.raises(TypeError, match="it is a class"):
                recipe(levels=kind)

    def test_one_of_ones_own_decides(self, tmp_path):
        for search in (Twice(), OfOnesOwn()):
            assert [result.record.density for result in results(recipe(levels=search))] == [1.0, 0.5]
        outcome = execute(recipe(levels=Twice()), model=network(), data=digits(), out=tmp_path / "r", device="cpu")
        assert outcome.record.why_ended == "twice"
        assert (recipe(levels=Twice()).needs, recipe(levels=Twice()).plan) == (frozenset(), AS_IT_IS)

    def test_it_may_exchange_what_a_level_that_was_pruned_becomes(self):
        class Short(Twice):
            def after_pruning(self, history, level, kept, total):
                assert (kept, total) == ((total // 2) if history else total, total)
                return dataclasses.replace(level, restart=carry_on, train=PLAN) if history else level

        first, second = results(recipe(levels=Short()))
        assert (first.record.epochs, second.record.epochs) == (0.0, 1.0)
        assert second.record.operation["restart"] == "sparsight:carry_on"

    def test_one_without_a_level_0_is_refused(self):
        class Never(Search):
            def next(self, history):
                return Done("there is nothing to do")

        with pytest.raises(ValueError, match="a recipe needs at least one level, got none: there is nothing to do"):
            recipe(levels=Never())

    def test_a_list_is_a_search(self):
        levels = PRETRAINED, Level((Shrink(0.5),), train=AS_IT_IS)
        search = recipe(*levels).search
        assert search == Listed(levels)
        assert search.rules == (FixedEpochs(), FixedEpochs())
        assert [search.upcoming(range(n)) for n in range(3)] == [(Shrink(0.5),)] * 3
        assert search.next(range(2)) == Done("the pruned level is done")
        assert recipe(PRETRAINED).search.upcoming(()) == ()


def test_a_scorer_is_one():
    with pytest.raises(TypeError, match=r"scorer must be callable as scorer\(model, masks, batches\), got 'magnitude'"):
        Scoring("magnitude")
    with pytest.raises(ValueError, match="batches must be at least 0, got -1"):
        Scoring(Magnitude(), batches=-1)
