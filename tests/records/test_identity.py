from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from sparsight.records.identity import ForeignRun, check_same, content_id, run_id
from sparsight.records.record import RunRecord, dumps, from_json

RUN = RunRecord(
    recipe="sap",
    arguments={"p": 0.5},
    description={"score": {"type": "Magnitude"}, "levels": [{"type": "SAP", "p": 0.5}], "batch_size": 128},
    seed=3,
    data={"name": "digits", "fingerprint": "d0"},
    model={"type": "mlp", "fingerprint": "m0"},
    environment={"device": "cpu", "precision": "no", "threads": 2, "world_size": 1, "python": "3.11"},
    keep="all",
    status="running",
    started="2020-01-01T00:00:00+00:00",
)


@pytest.mark.parametrize(
    ("changes", "where", "old", "new"),
    [
        ({"recipe": "lottery"}, "recipe", "'sap'", "'lottery'"),
        ({"seed": 4}, "seed", "3", "4"),
        (
            {"description": {**RUN.description, "levels": [{"type": "SAP", "p": 1.0}]}},
            r"description\.levels\[0\]\.p", "0.5", "1.0",
        ),
        ({"description": {**RUN.description, "levels": []}}, r"the length of description\.levels", "1", "0"),
        ({"description": {**RUN.description, "new": None}}, "description", r"\['batch_size'", r"\['batch_size'"),
        ({"description": {**RUN.description, "batch_size": 128.5}}, r"description\.batch_size", "128", "128.5"),
        ({"data": {**RUN.data, "fingerprint": "d1"}}, r"data\.fingerprint", "'d0'", "'d1'"),
        ({"model": {**RUN.model, "fingerprint": "m1"}}, r"model\.fingerprint", "'m0'", "'m1'"),
        ({"environment": {**RUN.environment, "threads": 1}}, r"environment\.threads", "2", "1"),
        ({"environment": {**RUN.environment, "device": "cuda"}}, r"environment\.device", "'cpu'", "'cuda'"),
        ({"environment": {**RUN.environment, "precision": "bf16"}}, r"environment\.precision", "'no'", "'bf16'"),
        ({"environment": {**RUN.environment, "world_size": 2}}, r"environment\.world_size", "1", "2"),
    ],
)  # fmt: skip
def test_another_run_is_refused_by_its_first_difference(changes, where, old, new):
    other = dataclasses.replace(RUN, **changes)
    with pytest.raises(ForeignRun, match=f": {where} is {old}.*, not {new}"):
        check_same(RUN, other)
    assert run_id(RUN) != run_id(other)


@pytest.mark.parametrize(
    "changes",
    [
        {"started": "later"},
        {"status": "interrupted", "ended": "x", "resumed": 4, "why_ended": "x"},
        {"keep": "last"},
        {"command": "sparsight run"},
        {"environment": {**RUN.environment, "python": "3.13"}},
        {"description": dict(reversed(RUN.description.items()))},
        {"description": {**RUN.description, "levels": ({"type": "SAP", "p": 0.5},)}},
    ],
)
def test_what_does_not_decide_bits_does_not_count(changes):
    stored = from_json(RunRecord, json.loads(dumps(RUN)))
    other = dataclasses.replace(RUN, **changes)
    check_same(stored, other)
    assert run_id(stored) == run_id(other)


def test_content_id_is_of_weights_and_masks():
    weights, masks = {"w": torch.ones(2)}, {"w": torch.tensor([True, False])}
    ids = {
        content_id(weights, masks),
        content_id({"w": torch.zeros(2)}, masks),
        content_id(weights, {"w": torch.tensor([True, True])}),
        content_id(weights, {}),
        content_id(masks, weights),
    }
    assert len(ids) == 5
    assert content_id({"w": torch.ones(2)}, dict(masks)) in ids


def of_version(version: str, **changes) -> RunRecord:
    return dataclasses.replace(RUN, environment={**RUN.environment, "sparsight": version}, **changes)


class TestVersions:
    @pytest.mark.parametrize("status", ["running", "interrupted", "failed"])
    @pytest.mark.parametrize("begun", ["0.1.0", "0.1.7", "0.3.0", "1.2.0"])
    def test_an_unfinished_run_of_another_version_is_refused_by_name(self, begun, status):
        words = rf"begun with sparsight {begun}, and 0\.2\.0 cannot resume it: install sparsight=={begun}"
        with pytest.raises(ForeignRun, match=words):
            check_same(of_version(begun, status=status), of_version("0.2.0"))

    def test_of_the_same_minor_version_it_goes_on(self):
        for begun, here in (("0.2.0", "0.2.0"), ("0.2.0", "0.2.9"), ("0.2.1", "0.2.0")):
            check_same(of_version(begun), of_version(here))

    @pytest.mark.parametrize("made", ["0.1.0", "0.3.1"])
    def test_a_finished_one_need_not_go_on_and_is_told_to_be_read(self, made):
        words = f"finished with sparsight {made}, and 0.2.0 cannot compare.*read it with sparsight show"
        with pytest.raises(ForeignRun, match=words):
            check_same(of_version(made, status="finished"), of_version("0.2.0"))
        check_same(of_version("0.2.0", status="finished"), of_version("0.2.1"))


@pytest.mark.parametrize("name", ["sbp_sr", "magnitude_at_init", "my_own"])
def test_a_folder_goes_on_however_its_recipe_is_spelled(name):
    def spelled(as_: str) -> RunRecord:
        return dataclasses.replace(RUN, recipe=as_, description={**RUN.description, "name": as_})

    check_same(spelled(name), spelled(name.replace("_", "-")))
    check_same(spelled(name.replace("_", "-")), spelled(name))
    with pytest.raises(ForeignRun, match="recipe is"):
        check_same(spelled(name), spelled("other-" + name))


@pytest.mark.parametrize(
    ("name", "there", "here"), [("epochs", 40, 5), ("target_density", None, 0.1), ("until", "density", "accuracy")]
)
def test_another_description_is_told_by_the_argument_that_made_it(name, there, here):
    stored = dataclasses.replace(RUN, arguments={**RUN.arguments, name: there})
    other = dataclasses.replace(
        RUN, arguments={**RUN.arguments, name: here}, description={**RUN.description, "batch_size": 1}
    )
    with pytest.raises(ForeignRun, match=f": {name} is {there!r}, not {here!r}"):
        check_same(stored, other)
