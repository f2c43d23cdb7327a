"""Study files: what they say, and that whatever is wrong is told with its line, key, value and what is accepted."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsight.cli.entry import main
from sparsight.cli.study_trials import planned
from sparsight.runs.study import Trial
from sparsight.runs.study.file import StudyFileError, cells, read_source, read_study_file


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "s.yaml"
    path.write_text(text)
    return path


WHOLE = """\
model: [linear, mlp]
data: digits
seeds: 2
arguments: {control: false, epochs: 2}
densities: [0.5, 0.25]
methods:
  - recipe: sap
    label: A
    arguments: {p: 0.5, q: 1}
  - recipe: snip
    grid: {score_batches: [1, 2]}
    options: {optimizer: adam}
    seeds: [7]
    model: mlp
    densities: [0.1]
"""


def test_recipes_arguments_seeds_models_and_data_make_trials(tmp_path):
    found = [plan.trial for plan in planned(written(tmp_path, WHOLE))]
    common = {"control": False, "epochs": 2}
    sap = {**common, "p": 0.5, "q": 1.0}
    made = [
        Trial("sap", {**sap, "target_density": density}, seed, model, "digits", "A")
        for seed in (0, 1)
        for model in ("linear", "mlp")
        for density in (0.5, 0.25)
    ]
    snip = {**common, "density": 0.1}
    made += [
        Trial(
            "snip", {**snip, "score_batches": n}, 7, "mlp", "digits", f"snip, score_batches={n}", {"optimizer": "adam"}
        )
        for n in (1, 2)
    ]
    assert [trial.key for trial in found] == [trial.key for trial in made]
    assert found == made


BUDGET = """\
data: digits
model: linear
budget: {epochs: 17, levels: 3}
densities: [0.125]
methods:
  - recipe: lottery
  - recipe: sap
    arguments: {epochs: 2}
  - recipe: incop
    arguments: {evaluate_every: 1}
  - recipe: oneshot
    arguments: {levels: 1}
  - recipe: grasp
  - recipe: lottery
    label: dense
    densities: [1]
    arguments: {levels: 0}
"""


def test_a_budget_is_shared_out_over_the_levels(tmp_path):
    found = [(dict(p.trial.arguments), dict(p.trial.options)) for p in planned(written(tmp_path, BUDGET))]
    arguments = [one for one, _ in found]
    assert {of["total_epochs"] for _, of in found} == {17}
    assert arguments == [
        {"target_density": 0.125, "levels": 3, "epochs": 4, "rate": 0.5},
        {"epochs": 2, "target_density": 0.125, "levels": 3},
        {"evaluate_every": 1.0, "target_density": 0.125, "levels": 3, "epochs": 4, "warmup": 4},
        {"levels": 1, "target_density": 0.125, "epochs": 8, "rate": 0.875},
        {"density": 0.125},
        {"levels": 0, "target_density": 1.0, "epochs": 17},
    ]


SAP = "methods: [{recipe: sap, "
WRONG = {
    "not yaml": ("a: [1", "line 1: not YAML: expected ',' or ']'"),
    "a key twice": ("seeds: 1\nmethods: []\nseeds: 2\n", "line 3: the key 'seeds' occurs twice"),
    "a tag": ("methods: !!python/object:os.system x", "line 1: expected plain values"),
    "a merge": ("methods:\n- <<: {recipe: sap}\n", "line 2: expected plain values, got the tag or key '<<'"),
    "another yaml": ("%YAML 1.1\n---\nmethods: []\n", "line 2: expected YAML 1.2"),
    "two documents": ("a: 1\n---\nb: 1\n", "line 2: not YAML"),
    "nothing": ("", "line 1: expected the keys of a study, or a list of methods, got nothing"),
    "text": ("sap", "got str"),
    "a key": ("seeds: 2\nmethod: []\n", "line 2: method: unknown key; did you mean 'methods'?"),
    "a key of a method": (
        "methods:\n  - recipe: sap\n    argument: {}\n",
        "line 3: methods[1].argument: unknown key; did you mean 'arguments'?",
    ),
    "a key of a budget": (
        "budget:\n  epoch: 3\nmethods: []\n",
        "line 2: budget.epoch: unknown key; did you mean 'epochs'?",
    ),
    "no recipe": ("methods:\n- label: x\n", "line 2: methods[1]: the key 'recipe' is missing"),
    "no methods": ("methods: []\n", "methods: must have at least one entry, got []"),
    "seeds": ("seeds: [1, a]\nmethods: [{recipe: sap}]", "line 1: seeds[2]: must be a whole number, got 'a'"),
    "no seeds": (
        "seeds: 0\nmethods: [{recipe: sap}]",
        "seeds: must be a number of seeds, at least 1 and at most 100,000, or a list of seeds, got 0",
    ),
    "too many seeds": ("seeds: 100001\nmethods: [{recipe: sap}]", "at most 100,000, or a list of seeds, got 100001"),
    "seeds: true": ("seeds: true\nmethods: [{recipe: sap}]", "line 1: seeds: must be a number of seeds, at least 1"),
    "a seed twice": (
        "data: digits\nseeds: [1, 1]\n" + SAP + "}]",
        "methods[1]: the trial sap with {}, mlp on digits, ",
    ),
    "a trial twice": (
        "data: digits\nmethods:\n- {recipe: sap, label: a}\n- {recipe: sap, label: b}\n",
        "line 4: methods[2]: the trial sap with {}, mlp on digits, seed 0, occurs twice: remove one of them",
    ),
    "a label twice": (
        "data: digits\nmethods:\n- {recipe: sap, label: mine}\n- {recipe: lottery, label: mine}\n",
        "line 4: methods[2].label: 'mine' names methods[1] too, on the same model, data, density and seed",
    ),
    "seed and seeds": (SAP + "seed: 1, seeds: 2}]", "methods[1].seed: give one of seed and seeds"),
    "a density": ("densities: [0]\nmethods: [{recipe: sap}]", "densities[1]: must be greater than 0, got 0"),
    "a recipe": ("methods:\n- recipe: sapp\n", "line 2: methods[1].recipe: unknown recipe 'sapp'; did you mean 'sap'?"),
    "a recipe of nobody": (
        "methods: [{recipe: 'no.such:recipe'}]",
        "methods[1].recipe: cannot import 'no.such:recipe'",
    ),
    "an argument": (
        "methods:\n- recipe: sap\n  arguments:\n    eta: 0\n    gama: 1\n",
        "line 5: methods[1].arguments.gama: sap does not have this argument; did you mean 'gamma'?",
    ),
    "an argument of none": (
        "arguments: {density: 1}\n" + SAP + "}]",
        "line 1: arguments.density: no recipe of the study has this argument",
    ),
    "a type": (SAP + "arguments: {epochs: 2.5}}]", "methods[1].arguments.epochs: must be a whole number, got 2.5"),
    "a word": (SAP + "arguments: {until: dense}}]", "must be 'density', 'pq-minimum' or 'accuracy', got 'dense'"),
    "a bool": (SAP + "arguments: {carry_on: 1}}]", "must be true or false, got 1"),
    "several types": (SAP + "arguments: {levels: x}}]", "must be a whole number, got 'x'"),
    "a value": (SAP + "arguments: {p: 3.0}}]", "line 1: methods[1]: "),
    "a seed among arguments": (SAP + "arguments: {seed: 1}}]", "set seeds with the study's key seeds"),
    "in grid and arguments": (SAP + "arguments: {p: 1.0}, grid: {p: [1.0]}}]", "grid.p: is also among the arguments"),
    "an empty grid": (SAP + "grid: {p: []}}]", "grid.p: must have at least one entry, got []"),
    "an option": (SAP + "options: {optimiser: adam}}]", "options.optimiser: unknown option; did you mean 'optimizer'?"),
    "an option's value": (SAP + "options: {total_epochs: x}}]", "must be a whole number, got 'x'"),
    "a model": ("model: lenet6\n" + SAP + "}]", "unknown model 'lenet6'; did you mean 'lenet5'?"),
    "data": ("data: ./nothing\n" + SAP + "}]", "nothing does not exist"),
    "a density twice": ("densities: [0.1]\n" + SAP + "arguments: {target_density: 0.1}}]", "not both"),
    "a budget that does not fit": ("budget: {epochs: 3}\n" + SAP + "}]", "3 epochs are too few for 7 pruned levels"),
    "a budget and any end": (
        "budget: {epochs: 48}\n" + SAP + "arguments: {until: accuracy}}]",
        "any of its levels may be the last",
    ),
}


@pytest.mark.parametrize(("text", "said"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_told_before_anything_starts(tmp_path, capsys, monkeypatch, text, said):
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path, text)
    assert main(["study", str(path)]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert str(path) in told
    assert not (tmp_path / "runs").exists()


def test_a_file_that_is_not_there(tmp_path, capsys):
    assert main(["study", str(tmp_path / "none.yaml")]) == 2
    assert "the file is missing" in capsys.readouterr().err


HUGE = {
    "a file": ("# " + "x" * (1 << 20), "more than 1,048,576 bytes"),
    "depth": ("[" * 30, "nested more than 20 levels deep"),
    "depth in a million": ("[" * 500_000, "nested more than 20 levels deep"),
    "aliases": (
        "a: &a [1,1,1,1,1,1,1,1,1,1]\n"
        + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in pairwise("abcdefg")),
        "more than 100,000 values, or 20 levels, with what its aliases repeat",
    ),
    "itself": ("&a [*a]", "with what its aliases repeat"),
    "a number": ("a: " + "9" * 9000, "not YAML: Exceeds the limit"),
}


@pytest.mark.parametrize(("text", "said"), HUGE.values(), ids=HUGE)
def test_a_file_beyond_the_budgets_is_refused(tmp_path, text, said):
    with pytest.raises(StudyFileError, match=said):
        read_source(written(tmp_path, text))


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused_with_its_path(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    refused = None
    try:
        assert list(cells(read_study_file(path)[0]))
    except StudyFileError as error:
        refused = str(error)
    assert refused is None or str(path) in refused


def test_yaml_is_1_2_and_plain(tmp_path):
    text = "a: [1e-3, yes, true, 2020-01-01, ~, 'x', 0o17, 017, .inf]\nb: &b {c: 1}\nd: *b\n"
    source = read_source(written(tmp_path, text))
    assert source.value == {
        "a": [0.001, "yes", True, "2020-01-01", None, "x", 15, 17, float("inf")], "b": {"c": 1}, "d": {"c": 1},
    }  # fmt: skip
    assert type(source.value["a"][2]) is bool
    assert (source.line(("d",)), source.line(("b", "c")), source.line(("d", "e", 3))) == (3, 2, 3)
