"""Devices for several processes, and what one process does of what several do together."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sparsight.records.files import DamagedFile
from sparsight.train import parallel
from sparsight.train.parallel import runtime


class Odd(Exception):
    """Cannot be made from its arguments."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(one + two)


@pytest.mark.parametrize(
    ("device", "gpus", "here", "on_cpu"),
    [("auto", 0, 2, True), ("auto", 2, 2, False), ("cuda", 4, 2, False), ("cpu", 1, 2, False), ("auto", 8, 8, False)],
)
def test_several_processes_have_a_gpu_each_or_none(device, gpus, here, on_cpu, monkeypatch):
    started(monkeypatch, gpus, here)
    assert parallel._several_on_cpu(device) == on_cpu


@pytest.mark.parametrize(
    ("device", "gpus", "words"),
    [
        ("auto", 1, "4 processes need a GPU each, and this machine has 1 GPU: start as many as there are GPUs"),
        ("cuda", 3, "4 processes need a GPU each, and this machine has 3 GPUs: .* or use device 'cpu'"),
        ("mps", 0, "4 processes need a GPU each, and Metal supports only one"),
    ],
)
def test_gpus_are_not_shared(device, gpus, words, monkeypatch):
    started(monkeypatch, gpus, 4)
    with pytest.raises(ValueError, match=words):
        parallel._several_on_cpu(device)


def started(monkeypatch: pytest.MonkeyPatch, gpus: int, here: int) -> None:
    for name, value in {"LOCAL_RANK": 1, "WORLD_SIZE": here, "LOCAL_WORLD_SIZE": here}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)


def test_one_process_does_all_once_and_changes_nothing():
    calls, alone = [], runtime("cpu")
    for do in (alone.on_main, alone.broadcast, alone.main_first):
        assert do(lambda: calls.append(1) or len(calls)) == len(calls)
    assert len(calls) == 3
    assert alone.gathered("x") == ["x"]
    model = torch.nn.Linear(2, 2)
    model.weight.grad = grad = torch.ones(2, 2)
    alone.average_(model.parameters())
    alone.broadcast_model_(model)
    assert model.weight.grad is grad
    assert model.bias.grad is None


@pytest.mark.parametrize(
    ("error", "kind"),
    [(ValueError("wrong"), ValueError), (DamagedFile(Path("a.json"), "cut", "restore it"), DamagedFile),
     (Odd(1, 2), RuntimeError)],
)  # fmt: skip
def test_an_error_is_told_as_it_is_if_it_can_be(error, kind):
    told = parallel._portable(error)
    assert type(told) is kind
    assert str(told) == (str(error) if kind is not RuntimeError else "Odd: 3")
