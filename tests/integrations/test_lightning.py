"""The callback of Lightning: exact zeros, masks in checkpoints, resuming to the same bits, several optimisers."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from two_processes import answers

from sparsight import Magnitude, Shrink, counts, dense, verify
from sparsight.integrations import AtEpochs, Gradual, UnfinishedSchedule
from sparsight.model import density
from sparsight.pruning import SAP

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its own imports
    lightning = pytest.importorskip("lightning.pytorch")
    from sparsight.integrations.lightning import PruningCallback

from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging, ModelCheckpoint, StochasticWeightAveraging

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*Checkpoint directory .* exists"),
    pytest.mark.filterwarnings("ignore:.*Trying to infer the `batch_size`"),
]

X = torch.randn(80, 12, generator=torch.Generator().manual_seed(0))
Y = (X[:, :3].sum(1) > 0).long() + (X[:, 3] > 1).long()


class Net(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.body = nn.Sequential(nn.Linear(12, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh())
            self.head = nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))

    def training_step(self, batch: Any, _: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), 0.01)


class Validated(Net):
    def validation_step(self, batch: Any, _: int) -> None:
        self.log("val_loss", F.cross_entropy(self(batch[0]), batch[1]))


class Checkpointed(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.utils.checkpoint.checkpoint(self.body, x, use_reentrant=False))


class Manual(Net):
    """Two optimisers, stepped by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, number: int) -> None:
        first, second = self.optimizers()  # type: ignore[misc]
        self.manual_backward(F.cross_entropy(self(batch[0]), batch[1]))
        for optimizer in (first, second) if number % 2 else (first,):
            optimizer.step()
            optimizer.zero_grad()

    def configure_optimizers(self) -> Any:
        body = torch.optim.SGD(self.body.parameters(), 0.05, momentum=0.9)
        return [body, torch.optim.Adam(self.head.parameters(), 0.01)]


class Watch(lightning.Callback):
    """Looks at the pruned weights after every batch, and keeps the densities."""

    def __init__(self, pruning: PruningCallback, stop: int = 0) -> None:
        self.pruning, self.stop, self.seen, self.logged = pruning, stop, [], []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        verify(pl_module, self.pruning.masks)
        self.seen.append(density(self.pruning.masks))
        self.logged.append({name: float(value) for name, value in trainer.callback_metrics.items()})
        if len(self.seen) == self.stop:
            raise RuntimeError("stopped")


def loader(size: int = 8) -> Any:
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), size)


def trainer(out: Path, *callbacks: Any, **more: Any) -> Any:
    options = {"max_epochs": 4, "accelerator": "cpu", "logger": False, "enable_progress_bar": False}
    options |= {"enable_model_summary": False, "enable_checkpointing": False, "log_every_n_steps": 5}
    return lightning.Trainer(default_root_dir=out, callbacks=[*callbacks], **{**options, **more})


def half(model: nn.Module) -> dict[str, Tensor]:
    masks = dense(model)
    return dict(Shrink(0.5)(Magnitude()(model, masks), masks))


def same(a: nn.Module, b: nn.Module) -> bool:
    there = b.state_dict()
    return all(torch.equal(value, there[name]) for name, value in a.state_dict().items())


def free(model: nn.Module) -> bool:
    return not any(p._post_accumulate_grad_hooks for p in model.parameters())


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        (Net, {"accumulate_grad_batches": 3}),
        (Net, {"precision": "bf16-mixed", "gradient_clip_val": 0.01}),
        (Net, {"precision": "bf16-true"}),
        (Checkpointed, {}),
        (Manual, {}),
    ],
    ids=str,
)
def test_given_masks_are_held(tmp_path, kind, more):
    model = kind()
    masks = half(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    pruning = PruningCallback(masks)
    trainer(tmp_path, pruning, Watch(pruning), **more).fit(model, loader())
    verify(model, masks)
    assert not torch.equal(model.head.weight.float(), before["head.weight"])
    assert free(model)


@pytest.mark.parametrize("kind", [Net, Manual])
def test_a_thousand_steps_to_a_tenth(tmp_path, kind):
    model = kind()
    pruning = PruningCallback(Gradual(density=0.1))
    watch = Watch(pruning)
    trainer(tmp_path, pruning, watch, max_epochs=100).fit(model, loader())
    kept, total = counts(pruning.masks)
    assert (kept, len(watch.seen)) == (round(0.1 * total), 1000)
    assert watch.seen == sorted(watch.seen, reverse=True)
    assert watch.seen[698] > watch.seen[700] == density(pruning.masks)
    assert len(set(watch.seen)) == 21
    assert watch.logged[-1]["density"] == pytest.approx(density(pruning.masks))
    assert 0 < watch.logged[-1]["pq_index"] < 1


def test_steps_and_an_end_by_steps(tmp_path):
    model = Net()
    pruning = PruningCallback(Gradual(0.2, rounds=3, begin=0.2, end=0.5))
    watch = Watch(pruning)
    trainer(tmp_path, pruning, watch, max_epochs=None, max_steps=20, accumulate_grad_batches=2).fit(model, loader())
    changed = [i for i in range(1, 40) if watch.seen[i] != watch.seen[i - 1]]
    assert changed == [12, 16, 20]  # batches, two of which make a step
    assert pruning.masks


def test_sap_prunes_before_the_epochs_named(tmp_path):
    model = Net()
    pruning = PruningCallback(AtEpochs(SAP(), epochs=(1, 2)))
    watch = Watch(pruning)
    trainer(tmp_path, pruning, watch).fit(model, loader())
    by_epoch = [watch.seen[i] for i in (0, 9, 10, 19, 20, 39)]
    assert by_epoch[0] == by_epoch[1] == 1 > by_epoch[2] == by_epoch[3] > by_epoch[4] == by_epoch[5]


@pytest.mark.parametrize("kind", [Net, Manual])
@pytest.mark.parametrize("schedule", [Gradual(0.2, rounds=7), AtEpochs(Shrink(0.5), epochs=(0, 1, 2))], ids=["g", "e"])
def test_a_training_that_is_resumed_ends_with_the_same_bits(tmp_path, kind, schedule):
    whole, again, fresh = kind(), kind(), kind()
    trainer(tmp_path, PruningCallback(schedule)).fit(whole, loader())
    stopped = PruningCallback(schedule)
    kept = ModelCheckpoint(tmp_path, save_last=True, every_n_epochs=1)
    with pytest.raises(RuntimeError, match="stopped"):
        trainer(tmp_path, stopped, Watch(stopped, 25), kept, enable_checkpointing=True).fit(again, loader())
    assert free(again)
    verify(again, stopped.masks)
    second = PruningCallback(schedule)
    kept = ModelCheckpoint(tmp_path, save_last=True, every_n_epochs=1)
    loop = trainer(tmp_path, second, Watch(second), kept, enable_checkpointing=True)
    loop.fit(fresh, loader(), ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert loop.current_epoch == 4
    assert same(whole, fresh)
    assert density(second.masks) < 0.3


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended")
def test_a_checkpoint_from_within_an_epoch_goes_on_with_its_masks(tmp_path):
    class Tested(Net):
        def test_step(self, batch: Any, number: int) -> None:
            self.log("loss", F.cross_entropy(self(batch[0]), batch[1]))

    first, kept = (
        PruningCallback(Gradual(0.2, rounds=7)),
        ModelCheckpoint(tmp_path, every_n_train_steps=15, save_top_k=-1),
    )
    loop = trainer(tmp_path, first, kept, enable_checkpointing=True)
    loop.fit(Tested(), loader())
    final = density(first.masks)
    loop.test(fresh := Tested(), loader(), ckpt_path=tmp_path / "epoch=1-step=15.ckpt", verbose=False)
    assert density(first.masks) > final  # those of the weights that were loaded
    verify(fresh, first.masks)
    second = PruningCallback(Gradual(0.2, rounds=7))
    watch = Watch(second)
    loop = trainer(
        tmp_path, second, watch, ModelCheckpoint(tmp_path, every_n_train_steps=15), enable_checkpointing=True
    )
    loop.fit(Tested(), loader(), ckpt_path=tmp_path / "epoch=1-step=15.ckpt")
    assert watch.seen == sorted(watch.seen, reverse=True)
    assert watch.seen[0] < density(first.masks) + 1e-9
    assert watch.seen[-1] == final


def test_averages_of_other_callbacks_hold_them_too(tmp_path):
    for average in (EMAWeightAveraging(decay=0.9), StochasticWeightAveraging(0.01, swa_epoch_start=1)):
        model = Validated()
        pruning = PruningCallback(Gradual(0.1, end=0.9))
        trainer(tmp_path, pruning, average).fit(model, loader(), loader())
        kept, total = counts(pruning.masks)
        assert kept == round(0.1 * total)
        verify(model, pruning.masks)


def test_what_is_refused(tmp_path):
    epochs = PruningCallback(AtEpochs(SAP(), epochs=(4,)))
    with pytest.raises(ValueError, match="the training has 4 epochs, 0 to 3, and is to prune before epoch 4"):
        trainer(tmp_path, epochs).fit(Net(), loader())
    for schedule in (Gradual(0.1), AtEpochs(SAP(), epochs=(0,))):
        with pytest.raises(ValueError, match="needs to know"):
            trainer(tmp_path, PruningCallback(schedule), max_epochs=-1).fit(Net(), loader())

    class Half(Net):
        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.head.parameters(), 0.1)

    with pytest.raises(ValueError, match="no given optimizer"):
        trainer(tmp_path, PruningCallback(half(Half()))).fit(Half(), loader())


def test_an_early_end_is_told(tmp_path):
    class Worse(Net):
        def validation_step(self, batch: Any, _: int) -> None:
            self.log("val_loss", float(self.current_epoch))

    pruning = PruningCallback(Gradual(0.1))
    early = EarlyStopping("val_loss", patience=1)
    with pytest.warns(UnfinishedSchedule, match=r"weights are left, and 150 were asked for"):
        trainer(tmp_path, pruning, early, max_epochs=20).fit(Worse(), loader(), loader())


def test_two_processes(tmp_path):
    first, second = answers("integrations/lightning_worker.py", tmp_path)
    assert first == second
    assert first["world"] == 2
    assert first["kept"] == first["goal"]
