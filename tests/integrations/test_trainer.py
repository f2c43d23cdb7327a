"""The callback of transformers' Trainer: exact zeros, masks beside checkpoints, resuming to the same bits."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from tasks import classifier, sentences
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from two_processes import answers

from sparsight import Magnitude, Shrink, counts, dense, load_masks, save_masks, verify
from sparsight.integrations import AtEpochs, Gradual, UnfinishedSchedule
from sparsight.model import density
from sparsight.pruning import SAP

transformers = pytest.importorskip("transformers")

from sparsight.integrations.transformers import FILE, PruningCallback  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::sparsight.model.left_out.LeftOutWarning")


@pytest.fixture(autouse=True)
def _quiet(monkeypatch) -> Iterator[None]:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    yield
    logging.disable(before)


class Watch(transformers.TrainerCallback):
    """Looks at the pruned weights after every step, and keeps the densities."""

    def __init__(self, pruning: PruningCallback, stop: int = 0) -> None:
        self.pruning, self.stop, self.seen = pruning, stop, []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        verify(kwargs["model"], self.pruning.masks)
        self.seen.append(density(self.pruning.masks))
        if state.global_step == self.stop:
            raise RuntimeError("stopped")


ROWS = sentences().train.dataset  # type: ignore[union-attr]


def trainer(model: nn.Module, out: Path, *callbacks: Any, **more: Any) -> Any:
    options = {"max_steps": 20, "per_device_train_batch_size": 8, "learning_rate": 1e-3, "weight_decay": 0.01}
    options |= {"logging_steps": 5, "save_strategy": "no", "use_cpu": True, "report_to": [], "disable_tqdm": True}
    rows = [{k: v for k, v in row.items() if k != "idx"} for row in ROWS]
    args = transformers.TrainingArguments(output_dir=str(out), **{**options, **more})
    return transformers.Trainer(model, args, train_dataset=rows, eval_dataset=rows[:24], callbacks=[*callbacks])


def half(model: nn.Module) -> dict[str, torch.Tensor]:
    masks = dense(model)
    return dict(Shrink(0.5)(Magnitude()(model, masks), masks))


def same(a: nn.Module, b: nn.Module) -> bool:
    there = b.state_dict()
    return all(torch.equal(value, there[name]) for name, value in a.state_dict().items())


@pytest.mark.parametrize(
    "more",
    [
        {"gradient_accumulation_steps": 2},
        {"bf16": True},
        {"activation_checkpointing": True},
        {"optim": "adafactor"},
        {"optim": "sgd", "optim_args": "momentum=0.9", "max_grad_norm": 0.01},
    ],
    ids=str,
)
def test_given_masks_are_held(tmp_path, more):
    model = classifier()
    masks, before = half(model), copy.deepcopy(model)
    pruning = PruningCallback(masks)
    trainer(model, tmp_path, pruning, Watch(pruning), **more).train()
    verify(model, masks)
    assert all(torch.equal(pruning.masks[name], mask) for name, mask in masks.items())
    name = next(iter(masks))
    assert not torch.equal(model.get_parameter(name), before.get_parameter(name))
    assert not model.get_parameter(name)._post_accumulate_grad_hooks


def test_a_thousand_steps_to_a_tenth(tmp_path):
    model = classifier()
    pruning = PruningCallback(Gradual(density=0.1))
    watch = Watch(pruning)
    loop = trainer(model, tmp_path, pruning, watch, max_steps=1000, logging_steps=100)
    loop.train()
    kept, total = counts(pruning.masks)
    assert kept == round(0.1 * total)
    verify(model, pruning.masks)
    assert watch.seen == sorted(watch.seen, reverse=True)
    assert len(set(watch.seen)) == 21  # the dense network, and 20 rounds
    assert watch.seen[698] > watch.seen[700] == density(pruning.masks)
    logs = [log for log in loop.state.log_history if "loss" in log]
    assert [log["density"] for log in logs] == [watch.seen[log["step"] - 1] for log in logs]
    assert all(0 < log["pq_index"] < 1 for log in logs)


def test_sap_prunes_before_the_epochs_named(tmp_path):
    model = classifier()
    pruning = PruningCallback(AtEpochs(SAP(), epochs=(1, 2)))
    watch = Watch(pruning)
    trainer(model, tmp_path, pruning, watch, max_steps=-1, num_train_epochs=4).train()
    by_epoch = [watch.seen[i] for i in (0, 29, 30, 59, 60, 119)]  # 30 steps each
    assert by_epoch[0] == by_epoch[1] == 1 > by_epoch[2] == by_epoch[3] > by_epoch[4] == by_epoch[5]


@pytest.mark.parametrize("schedule", [Gradual(0.2, rounds=7), AtEpochs(Shrink(0.5), epochs=(0, 1))], ids=["g", "e"])
@pytest.mark.parametrize("at", [30, 40])
def test_a_training_that_is_resumed_ends_with_the_same_bits(tmp_path, schedule, at):
    more = {"max_steps": 60, "save_strategy": "steps", "save_steps": 10}
    whole, again = classifier(), classifier()
    first = PruningCallback(schedule)
    trainer(whole, tmp_path / "whole", first, **more).train()
    stopped = PruningCallback(schedule)
    with pytest.raises(RuntimeError, match="stopped"):
        trainer(again, tmp_path / "part", stopped, Watch(stopped, stop=at + 1), **more).train()
    fresh, second = classifier(), PruningCallback(schedule)
    trainer(fresh, tmp_path / "part", second, Watch(second), **more).train(resume_from_checkpoint=True)
    assert same(whole, fresh)
    assert density(second.masks) < 0.6
    folder = tmp_path / "part" / "checkpoint-60"
    kept = load_masks(folder / FILE)
    verify(type(fresh).from_pretrained(folder), kept)
    assert all(torch.equal(mask, second.masks[name]) for name, mask in kept.items())


def test_a_copy_holds_them_too(tmp_path):
    model = classifier()
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    pruning = PruningCallback(Gradual(0.1), copies=[average])

    class Ema(transformers.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            average.update_parameters(model)
            verify(average, pruning.masks)

    trainer(model, tmp_path, pruning, Ema()).train()
    verify(average, pruning.masks)


def test_it_lets_go_of_a_training_that_fails(tmp_path):
    model = classifier()
    masks = half(model)
    name = next(iter(masks))
    with pytest.raises(RuntimeError, match="stopped"), PruningCallback(masks) as pruning:
        trainer(model, tmp_path, pruning, Watch(pruning, stop=3)).train()
    assert not model.get_parameter(name)._post_accumulate_grad_hooks
    verify(model, masks)
    left = PruningCallback(masks)
    with pytest.raises(RuntimeError, match="stopped"):
        trainer(model, tmp_path, left, Watch(left, stop=3)).train()
    trainer(model, tmp_path, left).train()
    assert not model.get_parameter(name)._post_accumulate_grad_hooks


def test_a_second_training_goes_on_with_its_masks_and_another_model_does_not(tmp_path):
    model = classifier()
    pruning = PruningCallback(Gradual(0.3))
    trainer(model, tmp_path, pruning).train()
    watch = Watch(pruning)
    trainer(model, tmp_path, pruning, watch).train()
    assert set(watch.seen) == {density(pruning.masks)}
    watch = Watch(pruning)
    trainer(classifier(), tmp_path, pruning, watch).train()
    assert watch.seen[0] > 0.7


def test_the_best_weights_come_back_with_their_masks(tmp_path):
    model = classifier()
    pruning = PruningCallback(Gradual(0.05, end=0.9))
    more = {"save_strategy": "steps", "save_steps": 10, "eval_strategy": "steps", "eval_steps": 10, "max_steps": 40}
    loop = trainer(model, tmp_path, pruning, load_best_model_at_end=True, learning_rate=3e-3, **more)
    with pytest.warns(UnfinishedSchedule, match="the training ended before its schedule: "):
        loop.train()
    best = Path(loop.state.best_model_checkpoint)
    assert best.name != "checkpoint-40"
    assert same(type(model).from_pretrained(best), model)
    verify(model, load_masks(best / FILE))


def test_what_is_refused(tmp_path):
    model = classifier()
    masks = half(model)
    saved = {"save_strategy": "steps", "save_steps": 10}
    trainer(model, tmp_path / "without", **saved).train()
    with pytest.raises(ValueError, match=r"cannot resume with masks: .*checkpoint-20 has no sparsight_masks"):
        trainer(model, tmp_path / "without", PruningCallback(masks), **saved).train(resume_from_checkpoint=True)
    trainer(model, tmp_path / "with", PruningCallback(masks), **saved).train()
    elsewhere = trainer(
        model, tmp_path / "with", PruningCallback(masks), resume_from_checkpoint=str(tmp_path / "moved")
    )
    (tmp_path / "moved").mkdir()
    save_masks({name: ~mask for name, mask in masks.items()}, tmp_path / "moved" / FILE)
    with pytest.raises(ValueError, match="the masks of the checkpoint are not those of the weights .* are not [+]0.0"):
        elsewhere.train(resume_from_checkpoint=str(tmp_path / "with" / "checkpoint-20"))
    other = PruningCallback(dense(model))
    with pytest.raises(ValueError, match="the masks given are not those of the checkpoint"):
        trainer(model, tmp_path / "with", other, **{**saved, "max_steps": 30}).train(resume_from_checkpoint=True)
    epochs = PruningCallback(AtEpochs(SAP(), epochs=(3,)))
    with pytest.raises(ValueError, match="the training has 2 epochs, 0 to 1, and is to prune before epoch 3"):
        trainer(model, tmp_path, epochs, max_steps=-1, num_train_epochs=2).train()
    with pytest.raises(ValueError, match="no parameter 'no.weight'"):
        trainer(model, tmp_path, PruningCallback({"no.weight": torch.ones(2, 2).bool()})).train()
    with pytest.raises(ValueError, match="there are no masks before the training begins"):
        _ = PruningCallback(Gradual(0.1)).masks
    with pytest.raises(ValueError, match="start is what a schedule begins with"):
        PruningCallback(masks, start=masks)
    with pytest.raises(TypeError, match="masks must be bool tensors by parameter name, got "):
        PruningCallback(model)  # type: ignore[arg-type]


def test_a_search_keeps_the_masks_of_each_trial_in_its_folder(tmp_path):
    model = classifier()
    pruning = PruningCallback(half(model))

    class Search(transformers.TrainerCallback):
        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            state.is_hyper_param_search = True
            (tmp_path / f"checkpoint-{state.global_step}").rename(
                tmp_path / "run-0" / f"checkpoint-{state.global_step}"
            )

    (tmp_path / "run-0").mkdir()
    trainer(model, tmp_path, Search(), pruning, save_strategy="steps", save_steps=20).train()
    assert (tmp_path / "run-0" / "checkpoint-20" / FILE).exists()


def test_a_tracker_that_comes_after_sees_the_figures(tmp_path):
    class Tracker(transformers.TrainerCallback):
        seen: ClassVar[list[Any]] = []

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            self.seen.append(dict(logs))

    model = classifier()
    pruning = PruningCallback(half(model))
    loop = trainer(model, tmp_path, Tracker(), pruning)
    loop.add_callback(loop.pop_callback(Tracker))
    loop.train()
    assert [log["density"] for log in Tracker.seen] == [0.5] * 5
    assert loop.evaluate().keys() >= {"eval_loss"}  # after the training there is nothing to log


def test_two_processes(tmp_path):
    first, second = answers("integrations/trainer_worker.py", tmp_path)
    assert first == second
    assert first["world"] == 2
    assert first["kept"] == first["goal"]
    assert first["written"] == first["masks"]
    assert first["resumed"] == first["weights"]
