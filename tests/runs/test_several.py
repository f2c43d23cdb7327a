"""One run in two processes: the same bits as one that adds up the gradients of the same halves, and one voice."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from runs.several_worker import RUNS
from two_processes import answers, data, halved, linear, torchrun

from sparsight import RunFolder, execute
from sparsight.recipes import sap
from sparsight.records import verify_run


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> tuple[Path, list[dict[str, Any]]]:
    """The folder in which two processes have worked, and what each has found."""
    folder = tmp_path_factory.mktemp("both")
    return folder, answers("runs/several_worker.py", folder)


@pytest.mark.parametrize("name", RUNS)
def test_masks_and_weights_are_those_of_one_process_that_adds_up_halves(both, name, tmp_path, monkeypatch):
    folder, (first, second) = both
    recipe, model = RUNS[name]
    halved(monkeypatch)
    one = execute(recipe(), model=model(), data=data(), device="cpu", out=tmp_path / name)
    assert first[name] == second[name]
    assert first[name]["tested"]
    assert verify_run(folder / f"{name}-run") == ()
    with RunFolder.open(folder / f"{name}-run") as two:
        assert [record.id for record in two.levels()] == first[name]["ids"]
        for here, there in zip(one.levels, two.levels(), strict=True):
            assert (here.kept, here.total, here.epochs, here.steps) == (
                there.kept,
                there.total,
                there.epochs,
                there.steps,
            )
            if name != "snip":
                assert here.id == there.id
                assert [o.reason for o in here.observations] == [o.reason for o in there.observations]
                assert here.value == there.value
                continue
            # Running averages of batch norm are those of process 0, which sees half of each batch.
            with RunFolder.open(one.path) as folder_of_one:
                mine, yours = folder_of_one.restore(here), two.restore(there)
            assert all(mine[1][n].equal(yours[1][n]) for n in mine[1])
            own = [n for n in mine[0] if not mine[0][n].equal(yours[0][n])]
            assert own == ["1.running_mean", "1.running_var", "1.num_batches_tracked"]


def test_every_process_has_the_same_results_without_a_folder(both):
    _, (first, second) = both
    assert first["in memory"] == second["in memory"] == first["snip"]["ids"]


def test_loaders_that_are_shared_out_train_together(both):
    _, (first, second) = both
    assert first["own loaders"] == second["own loaders"]
    assert len(first["own loaders"]) == 4  # the dense network, two levels, the control


def test_gradients_are_averaged_where_one_process_has_none(both):
    _, found = both
    for here in found:
        assert here["mean"] == [[1.5, 3.0], [2.0, 3.0], [2.0, 3.0], None]


@pytest.mark.parametrize(
    ("what", "words"),
    {
        "batch": "ValueError: a batch of 1 is too small for 2 processes",
        "seed": "ValueError: the 2 processes must run the same thing: description.seed is 0 in process 0",
        "data": "ValueError: the 2 processes must run the same thing: data.splits.train.length is 9 in process 0",
        "loader": "ValueError: the training loaders of the 2 processes must have the same number of batches, got 9, 3",
        "same": "ValueError: the training loaders of the 2 processes give the same batches, expected different ones",
        "parted": "ValueError: the test loader gives each of 2 processes a part (DistributedSampler), and",
        "taken": "FileExistsError: cannot start a run in sap-run: it holds",
        "sparse": "ValueError: 2 processes cannot average sparse gradients, expected dense ones",
    }.items(),
)
def test_both_processes_refuse_in_the_same_words(both, what, words):
    _, (first, second) = both
    assert first["refused"][what] == second["refused"][what]
    assert first["refused"][what].startswith(words)


def test_what_is_refused_leaves_no_folder(both):
    assert both[1][0]["left"] == both[1][1]["left"] == []


COMMAND = ("-m", "sparsight", "run", "sap", "--model", "two_processes:linear", "--data", "two_processes:data")
HOW = ("--levels", "1", "--epochs", "2", "--batch-size", "20", "--device", "cpu", "--threads", "1", "--out", "run")


def test_a_killed_process_ends_the_run_in_one_line_and_it_resumes_to_the_same_bits(tmp_path, monkeypatch):
    halved(monkeypatch)
    recipe = sap(levels=1, epochs=2, batch_size=20)
    alone = execute(recipe, model=linear(), data=data(), device="cpu", out=tmp_path / "one")
    (tmp_path / "kill").touch()
    killed = torchrun(*COMMAND, *HOW, cwd=tmp_path)
    assert killed.returncode == 1
    (said,) = re.findall("^sparsight: .*", killed.stderr, re.M)
    assert "another process of the run has ended, so this one cannot continue; resume with: torchrun" in said
    assert "--nproc-per-node 2 -m sparsight run sap --resume --out run --model=two_processes:linear" in said
    with RunFolder.open(tmp_path / "run") as folder:
        assert folder.progress() is not None
    (tmp_path / "kill").unlink()
    resumed = torchrun(*COMMAND, "--resume", "--out", "run", cwd=tmp_path)
    assert (resumed.returncode, resumed.stderr) == (0, "")
    assert resumed.stdout.count("\nresuming sap on ") == resumed.stdout.count("Report: run/report.html") == 1
    with RunFolder.open(tmp_path / "run") as folder:
        assert [record.id for record in folder.levels()] == [record.id for record in alone.levels]
        assert folder.record.resumed == 1
    assert verify_run(tmp_path / "run") == ()
