from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import math

import pytest
import torch
from torch import nn

from sparsight.measure.pq import pq_index
from sparsight.model import masks as m
from sparsight.pruning.allocate.fixed import Global, Shrink
from sparsight.pruning.allocate.sap import SAP
from sparsight.pruning.score.magnitude import Magnitude
from sparsight.records.folder import RunFolder
from sparsight.records.identity import ForeignRun
from sparsight.records.journal import Event
from sparsight.records.record import LevelRecord
from sparsight.runs.choose import SparsestWithin
from sparsight.runs.execute import execute
from sparsight.runs.level import Level
from sparsight.runs.recipe import Recipe, Scoring
from sparsight.runs.run import run
from sparsight.runs.search import Done, Until
from sparsight.train.evaluate import evaluate
from sparsight.train.judges import classify
from sparsight.train.observation import Observation
from sparsight.train.parallel import runtime
from sparsight.train.plan import TrainingPlan
from sparsight.zoo.data import digits
from sparsight.zoo.networks import mlp


def network(seed: int = 0) -> nn.Module:
    return mlp(input_shape=(1, 8, 8), classes=10, seed=seed)


PLAN, HALVE = TrainingPlan(batch_size=100, epochs=2), Shrink(0.5)


def until(levels: int = 3, prune=HALVE, plan: TrainingPlan = PLAN) -> Until:
    return Until(Level((prune,), train=plan), levels=levels)


def recipe(**changes) -> Recipe:
    base = Recipe(name="test", score=Magnitude(), levels=until(), seed=3)
    return dataclasses.replace(base, **changes)


def tensors(result) -> dict[str, torch.Tensor]:
    return {**{f"w/{k}": v for k, v in result.weights.items()}, **{f"m/{k}": v for k, v in result.masks.items()}}


def equal(a, b) -> bool:
    one, other = tensors(a), tensors(b)
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


class TestRun:
    def test_lottery_as_the_specification_defines_it(self):
        """Every level restarts from the initial weights; its mask is cut from what the level before ended with."""
        model = network()
        initial = copy.deepcopy(model.state_dict())
        results = list(run(recipe(), model, digits(), device="cpu"))
        assert [r.record.kept for r in results] == [43520, 21760, 10880, 5440]
        for before, after in itertools.pairwise(results):
            scores = {n: before.weights[n].abs() for n in before.masks}
            expected = Shrink(0.5)(scores, before.masks)
            assert all(torch.equal(after.masks[n], expected[n]) for n in expected)
            assert after.record.parent == before.record.id
        assert all(torch.equal(v, initial[k]) for k, v in model.state_dict().items()), "the model passed in stays"
        for result in results:
            loaded = network(seed=5)
            loaded.load_state_dict(result.weights)
            m.verify(loaded, result.masks)
            worth = evaluate(loaded, digits().validation, classify, runtime("cpu"))
            assert worth.accuracy == result.record.validation_accuracy

    def test_one_shot_scores_the_dense_network_at_every_level(self):
        results = list(run(recipe(score=Scoring(Magnitude(), of="dense")), network(), digits(), device="cpu"))
        dense = results[0]
        scores = {n: dense.weights[n].abs() for n in dense.masks}
        masks = dense.masks
        for result in results[1:]:
            masks = Shrink(0.5)(scores, masks)
            assert all(torch.equal(result.masks[n], masks[n]) for n in masks)

    def test_rounds_without_training_and_scores_from_init(self):
        rounds = Global(density=0.5), Global(density=0.1)
        how = recipe(score=Scoring(Magnitude(), of="init"), levels=(Level(rounds, train=PLAN),))
        model = network()
        (result,) = run(how, model, digits(), device="cpu")
        scores = {n: m.named(model)[n].detach().abs() for n in result.masks}
        expected = Global(density=0.1)(scores, m.dense(model))
        assert all(torch.equal(result.masks[n], expected[n]) for n in expected)

    def test_the_same_call_gives_the_same_bits_and_another_seed_does_not(self):
        runs = [list(run(recipe(seed=s), network(), digits(), device="cpu")) for s in (3, 3, 4)]
        assert all(equal(a, b) for a, b in zip(runs[0], runs[1], strict=True))
        assert [r.record for r in runs[0]] == [r.record for r in runs[1]]
        assert not equal(runs[0][-1], runs[2][-1])

    def test_rewind_point_after_an_epoch(self):
        stops = []

        def watch(event: Event) -> None:
            stops.append((event.kind, event.level))

        results = list(run(recipe(rewind_epoch=1, levels=until(1)), network(), digits(), device="cpu", watch=watch))
        early = list(run(recipe(rewind_epoch=0, levels=until(1)), network(), digits(), device="cpu"))
        assert equal(results[0], early[0])
        assert not equal(results[1], early[1])
        assert stops == [(k, n) for n in (0, 1) for k in ("begin", "epoch", "epoch", "done")]

    def test_the_record_holds_what_was_computed(self):
        results = list(run(recipe(levels=until(2, SAP(1.0, 2.0))), network(), digits(), device="cpu"))
        for before, after in itertools.pairwise(results):
            record = after.record
            alive = {n: before.weights[n] for n in before.masks}
            index = pq_index(alive, 1.0, 2.0, mask=dict(before.masks))
            (group,) = record.groups
            assert group.index == index
            assert group.c == before.record.kept - record.kept
            assert before.record.pq[before.record.pq_pairs.index((1.0, 2.0))] == index
            for layer in before.record.layers:
                w = before.weights[layer.name]
                for (p, q), value in zip(before.record.pq_pairs, layer.pq, strict=True):
                    assert value == pq_index(w, p, q, mask=before.masks[layer.name])
            assert record.operation["rounds"][0]["type"] == "SAP"
            assert json.loads(json.dumps(record.operation)) == record.operation

    def test_control_trains_the_dense_network_for_all_epochs(self):
        *levels, control = run(recipe(control=True), network(), digits(), device="cpu")
        assert control.record.role == "control"
        assert control.record.epochs == sum(r.record.epochs for r in levels) == 8
        assert control.record.density == 1.0

    def test_nan_weights_are_refused_by_name(self):
        model = network()
        with torch.no_grad():
            m.named(model)[list(m.dense(model))[1]][0, 0] = float("nan")
        how = recipe(score=Scoring(Magnitude(), of="init"), levels=(Level((Global(density=0.5),), train=PLAN),))
        with pytest.raises(ValueError, match=list(m.dense(model))[1]):
            list(run(how, model, digits(), device="cpu"))

    def test_nothing_to_prune(self):
        with pytest.raises(ValueError, match="no prunable weights"):
            run(recipe(), nn.BatchNorm1d(3), digits(), device="cpu")


class TestExecute:
    def test_a_run_folder_that_can_be_used_without_us(self, tmp_path):
        from safetensors.torch import load_file

        out = execute(recipe(control=True), model=network(), data=digits(), out=tmp_path / "r", device="cpu")
        assert out.record.status == "finished"
        assert out.record.chosen is not None
        plain = network(seed=8)
        plain.load_state_dict(load_file(tmp_path / "r" / "model.safetensors"), strict=True)
        chosen = next(r for r in out.levels if r.id == out.record.chosen.id)
        worth = evaluate(plain, digits().test, classify, runtime("cpu"))
        entry = next(e for e in out.evaluation.entries if e.id == chosen.id)
        assert entry.test_accuracy == worth.accuracy
        assert [e.role for e in out.evaluation.entries] == ["level"] * 4 + ["control"]
        assert out.report.exists()

    @pytest.mark.parametrize(
        "how",
        [recipe(control=True), recipe(score=Scoring(Magnitude(), of="dense")), recipe(rewind_epoch=1)],
        ids=["control", "one-shot", "rewind"],
    )
    def test_interrupted_anywhere_it_ends_with_the_same_bits(self, tmp_path, how):
        whole = execute(how, model=network(), data=digits(), out=tmp_path / "whole", device="cpu")
        ticks = 0

        def count(event: Event) -> None:
            nonlocal ticks
            ticks += 1

        execute(how, model=network(), data=digits(), out=tmp_path / "count", device="cpu", watch=count)
        for stop in range(0, ticks, 3):
            folder, seen = tmp_path / f"at{stop}", 0

            def interrupt(event: Event, stop: int = stop) -> None:
                nonlocal seen
                if seen == stop:
                    raise KeyboardInterrupt
                seen += 1

            with pytest.raises(KeyboardInterrupt):
                execute(how, model=network(), data=digits(), out=folder, device="cpu", watch=interrupt)
            with RunFolder.open(folder) as stored:
                assert stored.record.status == "interrupted"
            again = execute(how, model=network(), data=digits(), out=folder, resume=True, device="cpu")
            assert again.record.resumed == 1
            for name in ("levels.jsonl", "evaluation.json", "model.safetensors", "masks.safetensors"):
                assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), (stop, name)
            assert again.levels == whole.levels

    def test_resuming_another_recipe_is_refused(self, tmp_path):
        execute(recipe(), model=network(), data=digits(), out=tmp_path / "r", device="cpu")
        for other, net, words in (
            (recipe(levels=until(plan=dataclasses.replace(PLAN, epochs=3))), network(), "epochs"),
            (recipe(seed=4), network(), "seed"),
            (recipe(), network(seed=1), "fingerprint"),
        ):
            with pytest.raises(ForeignRun, match=words):
                execute(other, model=net, data=digits(), out=tmp_path / "r", resume=True, device="cpu")

    def test_an_existing_folder_is_never_overwritten(self, tmp_path):
        (tmp_path / "r").mkdir()
        (tmp_path / "r" / "mine.txt").write_text("precious")
        with pytest.raises((FileExistsError, ValueError), match="r"):
            execute(recipe(), model=network(), data=digits(), out=tmp_path / "r", device="cpu")
        assert (tmp_path / "r" / "mine.txt").read_text() == "precious"
        assert [p.name for p in (tmp_path / "r").iterdir()] == ["mine.txt"]

    @pytest.mark.parametrize("keep", ["all", "chosen", "last"])
    def test_keep(self, tmp_path, keep):
        out = execute(recipe(), model=network(), data=digits(), out=tmp_path / "r", keep=keep, device="cpu")
        stored = sorted(p.parent.name for p in (tmp_path / "r" / "levels").glob("*/model.safetensors"))
        assert stored == {"all": ["000", "001", "002", "003"], "chosen": [], "last": ["003"]}[keep]
        assert (tmp_path / "r" / "model.safetensors").exists()
        assert len(out.evaluation.entries) == 4


def record_of(level: int, kept: int, accuracy: float | None, role: str = "level") -> LevelRecord:
    seen = (Observation(1.0, 1, validation_accuracy=accuracy, reason="end"),)
    return LevelRecord(
        level=level, role=role, id=f"{role}{level}", parent=None, operation={}, kept=kept, total=100, layers=(),
        pq_pairs=((0.5, 1.0),), pq=(0.1,), groups=(), floors=(), collapsed=(), observations=seen, epochs=1.0, steps=1,
    )  # fmt: skip


class TestSparsestWithin:
    def test_takes_the_sparsest_even_after_a_dip(self):
        records = [record_of(0, 100, 0.9), record_of(1, 50, 0.89), record_of(2, 20, 0.895), record_of(3, 5, 0.8)]
        choice = SparsestWithin(0.5)(records)
        assert (choice.level, choice.id) == (2, "level2")
        assert "0.5 points" in choice.why
        assert "89.50 % against 90.00 % (-0.50 points)" in choice.why

    def test_the_dense_level_is_in_reach_of_itself(self):
        assert SparsestWithin(0.0)([record_of(0, 100, 0.9), record_of(1, 50, 0.89)]).level == 0

    def test_without_a_dense_level_the_control_is_the_reference(self):
        records = [record_of(0, 5, 0.8), record_of(1, 2, 0.7), record_of(2, 100, 0.95, "control")]
        choice = SparsestWithin(1.0)(records)
        assert choice.level == 0
        assert "no level is within 1 point of dense" in choice.why

    def test_nothing_to_compare_with(self):
        assert SparsestWithin()([record_of(0, 5, 0.8), record_of(1, 2, 0.7)]).level == 1
        with pytest.raises(ValueError, match="cannot choose"):
            SparsestWithin()([])

    def test_a_level_that_was_not_a_number_is_not_the_best(self):
        for order in ((math.nan, 0.5, 0.6), (0.6, math.nan, 0.5), (0.5, 0.6, math.nan)):
            records = [record_of(i, 50 - i, accuracy) for i, accuracy in enumerate(order)]
            choice = SparsestWithin(0.5)([*records, record_of(9, 100, 0.9, "control")])
            assert order[choice.level] == 0.6

    @pytest.mark.parametrize("points", [math.nan, math.inf, None, "1"])
    def test_points_that_are_no_number(self, points):
        with pytest.raises(ValueError, match="points must be a finite number, got"):
            SparsestWithin(points)


class TestUntil:
    def test_reasons(self):
        level = Level((Shrink(0.5),), train=PLAN)
        search = Until(level, density=0.2, levels=3)
        assert search.next([]) == Level(train=PLAN)
        history = [record_of(0, 100, 0.9)]
        assert search.next(history) == level
        assert search.next([*history, record_of(1, 20, 0.9)]) == Done("density 20 % has reached the target of 20 %")
        stuck = [*history, record_of(1, 50, 0.9), record_of(2, 50, 0.9), record_of(3, 50, 0.9)]
        assert "all 3 pruned levels" in search.next(stuck).why
        assert "removed nothing" in Until(level, density=0.2).next(stuck).why
        with pytest.raises(ValueError, match="needs density, levels or stop"):
            Until(level)


def test_a_deleted_evaluation_is_made_again(tmp_path):
    how = recipe()
    first = execute(how, model=network(), data=digits(), out=tmp_path / "r", device="cpu")
    (tmp_path / "r" / "evaluation.json").unlink()
    (tmp_path / "r" / "report.html").unlink()
    again = execute(how, model=network(), data=digits(), out=tmp_path / "r", resume=True, device="cpu")
    assert again.evaluation == first.evaluation
    assert again.report.exists()
