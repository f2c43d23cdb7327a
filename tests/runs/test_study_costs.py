"""What trials cost, counted by hand; and what is told before a study starts and when it has ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sparsight.cli.entry import main
from sparsight.cli.study import ranked
from sparsight.recipes import grasp, incop, lottery, sipp, snip, synflow
from sparsight.runs.execute import execute
from sparsight.runs.study import rows
from sparsight.runs.study.rows import forward_equivalents

TRAIN, VALIDATION = 1197, 300  # images of digits
SHORT = {"epochs": 2, "control": False}
TRAINED = 2 * 3 * TRAIN + 2 * VALIDATION  # two epochs, validated after each
LEVELS = {**SHORT, "levels": 1, "target_density": 0.5}

COSTS = {
    "a gradient": (snip(batch_size=100, **SHORT), [TRAINED + 3 * 100]),
    "of the usual batch": (snip(**SHORT), [TRAINED + 3 * 250]),
    "of several batches": (snip(batch_size=100, score_batches=3, **SHORT), [TRAINED + 3 * 300]),
    "of more than there are": (snip(score_batches=30, **SHORT), [TRAINED + 3 * TRAIN]),
    "in rounds": (snip(batch_size=100, rounds=4, **SHORT), [TRAINED + 4 * 3 * 100]),
    "a gradient of a gradient": (grasp(batch_size=100, **SHORT), [TRAINED + 9 * 100]),
    "without data": (synflow(rounds=7, **SHORT), [TRAINED + 7 * 3]),
    "activations": (sipp(batch_size=100, points=150, **LEVELS), [TRAINED, TRAINED + 200]),
    "nothing": (lottery(**LEVELS), [TRAINED, TRAINED]),
}


@pytest.mark.parametrize(("recipe", "expected"), COSTS.values(), ids=COSTS)
def test_forward_passes_are_those_counted_by_hand(tmp_path, recipe, expected):
    outcome = execute(recipe, model="linear", data="digits", out=tmp_path / "r", device="cpu")
    assert [forward_equivalents(outcome.record, level) for level in outcome.levels] == expected
    (one, *_) = outcome.times
    assert one.total == one.prune + one.train + one.validate + one.measure + one.store


def test_what_a_rule_measures_is_counted(tmp_path):
    """Information flow on 100 probes: the dense network once as the reference, the level at each of its evaluations."""
    recipe = incop(warmup=1, epochs=2, levels=1, target_density=0.5, probes=100, evaluate_every=1.0, control=False)
    outcome = execute(recipe, model="mlp", data="digits", out=tmp_path / "r", device="cpu")
    measured = sum(
        seen.values.get("cost:forward samples", 0) for level in outcome.levels for seen in level.observations
    )
    found = [forward_equivalents(outcome.record, level) for level in outcome.levels]
    assert sum(found) == 3 * 3 * TRAIN + 3 * VALIDATION + measured


def test_loaders_whose_length_is_not_known_cost_nothing_that_could_be_told(tmp_path):
    outcome = execute(snip(**SHORT), model="linear", data="digits", out=tmp_path / "r", device="cpu")
    record = outcome.record
    record.data["splits"]["train"].pop("samples")
    assert forward_equivalents(record, outcome.levels[0]) is None


def test_settings_are_ranked_as_far_as_their_seeds_allow():
    values = {"a": (0.9, 0.91, 0.92), "b": (0.9, 0.92, 0.91), "c": (0.5, 0.51, 0.52)}
    about = {"model": "m", "data": "d", "density": 0.1, "status": "finished", "chosen": True, "recipe": "r"}
    found = [
        {**about, "label": label, "arguments": "{}", "seed": seed, "test_accuracy": x, "validation_accuracy": 0.0}
        for label, of in values.items()
        for seed, x in enumerate(of)
    ]
    line, note = ranked(found)
    assert line == "At 10.0 %, m on d, by test accuracy: (a, b) > c"
    assert note.startswith("In brackets")
    assert ranked([row for row in found if row["seed"] == 0]) == [], "one seed tells nothing"
    assert ranked([{**row, "test_accuracy": None} for row in found]) != []
    assert ranked([{**row, "chosen": False} for row in found]) == ranked([]) == []


# -- a study ------------------------------------------------------------------------------------------------------

STUDY = """\
model: linear
data: digits
arguments: {control: false, batch_size: 100}
budget: {epochs: 7, levels: 2}
densities: [0.5, 0.25]
methods:
  - {recipe: lottery, label: L}
  - {recipe: sap, label: S}
"""


def seen(out: Path) -> list[dict]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows(out)]


def command(tmp_path: Path, out: str) -> list[str]:
    return [
        "study",
        str(tmp_path / "s.yaml"),
        "--out",
        str(tmp_path / out),
        "--device=cpu",
        "--threads=1",
        "--workers=2",
    ]


def test_a_study_of_one_budget_and_the_same_one_killed(tmp_path, capsys):
    (tmp_path / "s.yaml").write_text(STUDY)
    assert main([*command(tmp_path, "whole"), "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "4 trials, 0 of them finished" in told
    assert "L  2 × linear on digits, 7 epochs each" in told
    assert "4 trials start from 1 dense network, each trained once. That saves 6 epochs" in told
    assert "measured now" in told
    assert not (tmp_path / "whole").exists()

    assert main(command(tmp_path, "whole")) == 0
    table = capsys.readouterr().out.partition("Chosen networks")[2]
    assert [line.split()[-1] for line in table.splitlines() if "%" in line and line.endswith(("L", "S"))] == [*"LSLS"]
    found = [row for row in rows(tmp_path / "whole") if row["chosen"]]
    assert {row["cumulative_epochs"] for row in found} == {7}
    assert {row["kept"] for row in found} == {320, 160}
    assert {row["cumulative_steps"] for row in found} == {7 * 12}
    charged = [row["seconds"] for row in rows(tmp_path / "whole") if row["level"] == 0]
    assert len(charged) == 4
    assert len({*charged}) == 1, "each is charged for the training that they share"
    assert json.loads((tmp_path / "whole" / "rows.json").read_text()) == rows(tmp_path / "whole")

    words = [sys.executable, "-m", "sparsight", *command(tmp_path, "killed")]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    until = time.monotonic() + 300
    while not list((tmp_path / "killed" / "shared").glob("*.safetensors")) and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    while True:  # its trials end with the pipe that they hold
        capsys.readouterr()
        if main(command(tmp_path, "killed")) == 0:
            break
        assert "another process is writing" in capsys.readouterr().out
    assert seen(tmp_path / "killed") == seen(tmp_path / "whole")

    assert main([*command(tmp_path, "killed"), "--dry-run"]) == 0
    assert "4 trials, 4 of them finished" in capsys.readouterr().out
