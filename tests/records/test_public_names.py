"""What is ours is described by its public name, wherever it is defined, so that a move does not break a resume."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any

import pytest

from sparsight.model.loss import cross_entropy
from sparsight.model.masks import dense
from sparsight.pruning import Magnitude, Reinitialise, Shrink, carry_on, rewind
from sparsight.recipes import __all__ as names
from sparsight.records.folder import RunFolder
from sparsight.records.identity import ForeignRun, describe, public_name
from sparsight.runs import Level, Recipe, execute
from sparsight.train import NesterovSGD, TrainingPlan, classify, cosine
from sparsight.zoo.data import digits
from sparsight.zoo.networks import mlp


def moved(function: Callable[..., Any], module: str) -> Callable[..., Any]:
    """The function as if it were defined in another module."""

    @functools.wraps(function)
    def twin(*args: Any, **keywords: Any) -> Any:
        return function(*args, **keywords)

    twin.__module__ = module
    return twin


def mine(model, rewind_point, allocation):
    return rewind(model, rewind_point, allocation)


class TestNames:
    @pytest.mark.parametrize("function", [rewind, carry_on, cosine, classify, cross_entropy, dense])
    def test_of_our_functions(self, function):
        assert describe(function) == f"sparsight:{function.__name__}"
        assert describe(moved(function, "sparsight.elsewhere.deeper")) == describe(function)
        assert describe(moved(function, "sparsight")) == describe(function)

    def test_of_others_they_say_where(self):
        assert describe(mine) == f"{__name__}:mine"
        assert describe(moved(mine, "other.place")) == "other.place:mine"
        assert describe(moved(rewind, "sparsightly.restart")) == "sparsightly.restart:rewind", "a name like ours"

    def test_of_classes_methods_and_partials(self):
        assert describe(Shrink) == "sparsight:Shrink"
        assert public_name(NesterovSGD) == "sparsight:NesterovSGD"
        assert public_name(Shrink.plan) == "sparsight:Shrink.plan"
        assert describe(Shrink(0.2).plan)["method"] == "sparsight:Shrink.plan"
        assert describe(functools.partial(rewind, model=1))["partial"] == "sparsight:rewind"

    @pytest.mark.parametrize("name", names)
    def test_no_recipe_is_described_by_a_place_in_the_package(self, name):
        from sparsight import recipes

        text = json.dumps(describe(getattr(recipes, name)()))
        assert "sparsight." not in text
        assert '"sparsight:' in text


def recipe(restart) -> Recipe:
    plan = TrainingPlan(epochs=1, batch_size=250)
    levels = (Level(train=plan), Level((Shrink(0.5),), restart, plan))
    return Recipe(name="test", score=Magnitude(), levels=levels)


class TestResume:
    def test_after_a_move_it_goes_on(self, tmp_path):
        where = {"model": mlp((1, 8, 8), 10, hidden=(20,), seed=0), "data": digits(), "device": "cpu"}

        def interrupt(event) -> None:
            if event.kind == "done":
                raise KeyboardInterrupt

        whole = execute(recipe(rewind), **where, out=tmp_path / "whole")
        with pytest.raises(KeyboardInterrupt):
            execute(recipe(moved(rewind, "sparsight.restart")), **where, out=tmp_path / "r", watch=interrupt)
        for other in (carry_on, mine, Reinitialise(0), moved(rewind, "others.restart")):
            with pytest.raises(ForeignRun, match="restart is 'sparsight:rewind', not "):
                execute(recipe(other), **where, out=tmp_path / "r", resume=True)
        again = execute(recipe(rewind), **where, out=tmp_path / "r", resume=True)
        assert again.levels == whole.levels
        with RunFolder.open(tmp_path / "r") as folder:
            assert folder.levels()[1].operation["restart"] == "sparsight:rewind"
