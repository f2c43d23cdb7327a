"""Training of the dense network that runs share: the same bits as alone, and only between runs that begin alike."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from sparsight.recipes import incop, lottery, oneshot, sap, sipp, snip
from sparsight.records.files import DamagedFile
from sparsight.records.journal import Event
from sparsight.records.starts import Starts
from sparsight.runs.execute import execute
from sparsight.runs.recipe import Recipe

SHORT = {"epochs": 2, "levels": 1, "batch_size": 100, "control": False, "target_density": 0.2}


def ran(recipe: Recipe, out: Path, share: Path | None = None, **how: Any):
    trained: list[int] = []

    def watch(event: Event) -> None:
        if event.kind == "epoch":
            trained.append(event.level)

    outcome = execute(
        recipe, model="lenet-300-100", data="digits", out=out, share=share, device="cpu", threads=1, watch=watch, **how
    )
    return outcome, trained


def contents(run: Path) -> dict[str, bytes]:
    """All files but those that know a clock."""
    clocks = ("run.json", "times.jsonl", "report.html", "run.lock")
    return {str(p.relative_to(run)): p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name not in clocks}


SECOND = {
    "sap": sap(**SHORT),
    "oneshot": oneshot(**SHORT),
    "sipp": sipp(**SHORT),
    "rewound to inside level 0": lottery(rewind_epoch=1, **SHORT),
}


@pytest.mark.parametrize("second", SECOND.values(), ids=SECOND)
def test_a_shared_start_gives_the_bits_of_a_run_of_its_own(tmp_path, second):
    alone, _ = ran(second, tmp_path / "alone")
    first = lottery(**{**SHORT, "target_density": 0.5}, rewind_epoch=second.rewind_epoch)
    ran(first, tmp_path / "first", tmp_path / "share")
    shared, trained = ran(second, tmp_path / "second", tmp_path / "share")
    assert 0 not in trained, "level 0 was taken"
    assert contents(shared.path) == contents(alone.path)
    assert len(list((tmp_path / "share").glob("*.safetensors"))) == 1
    assert shared.times[0].train > 0, "what was taken counts"
    assert shared.times[0].train == ran(first, tmp_path / "first", resume=True)[0].times[0].train


OTHERS = {
    "another seed": (lottery(**SHORT, seed=1), {}),
    "another plan": (lottery(**SHORT, lr=0.05), {}),
    "another rewind point": (lottery(**SHORT, rewind_epoch=1), {}),
    "other batches": (lottery(**{**SHORT, "batch_size": 50}), {}),
    "another rule of its own": (incop(warmup=2, epochs=2, levels=1, batch_size=100, evaluate_every=1.0), {}),
    "another precision": (lottery(**SHORT), {"precision": "bf16"}),
}


@pytest.mark.parametrize(("other", "how"), OTHERS.values(), ids=OTHERS)
def test_runs_that_begin_otherwise_share_nothing(tmp_path, other, how):
    ran(lottery(**SHORT), tmp_path / "first", tmp_path / "share")
    _, trained = ran(other, tmp_path / "other", tmp_path / "share", **how)
    assert 0 in trained


def test_controls_of_as_many_levels_are_shared(tmp_path):
    short = {"epochs": 2, "batch_size": 100, "density": 0.2}
    alone, _ = ran(snip(**short), tmp_path / "alone")
    ran(snip(**{**short, "density": 0.5}), tmp_path / "first", tmp_path / "share")
    shared, trained = ran(snip(**short), tmp_path / "second", tmp_path / "share")
    assert trained == [0, 0], "the pruned level alone"
    assert contents(shared.path) == contents(alone.path)


def own(progress: float) -> float:
    return 1.0


def test_code_of_others_is_not_shared(tmp_path):
    """Two closures have one name: that of a schedule does not say what it does."""
    from dataclasses import replace

    from sparsight.runs.level import Level

    recipe = lottery(levels=0, **{k: v for k, v in SHORT.items() if k not in ("levels", "target_density")})
    plan = replace(recipe.plan, schedule=lambda progress: 1.0)
    for schedule in (plan.schedule, own):
        recipe = replace(recipe, levels=(Level(train=replace(plan, schedule=schedule)),))
        ran(recipe, tmp_path / schedule.__name__, tmp_path / "share")
    assert not (tmp_path / "share").exists()


def test_one_trains_and_the_others_wait(tmp_path):
    starts, order = Starts(tmp_path / "share", {}), []

    def second() -> None:
        with starts.held("key"):
            order.append(starts.get("key"))

    with starts.held("key"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.2)
        starts.keep("key", {"a": 1})
    thread.join(30)
    assert order == [{"a": 1}]


def test_a_damaged_start_is_refused_with_its_remedy(tmp_path):
    ran(lottery(**SHORT), tmp_path / "first", tmp_path / "share")
    (path,) = (tmp_path / "share").glob("*.safetensors")
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedFile, match="delete it; the next run that needs it trains it again"):
        ran(sap(**SHORT), tmp_path / "second", tmp_path / "share")
    path.unlink()
    ran(sap(**SHORT), tmp_path / "third", tmp_path / "share")
