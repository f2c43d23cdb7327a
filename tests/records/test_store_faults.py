"""What happens to a run folder when any one step of writing it fails, and what files with good checksums cannot do."""

from __future__ import annotations

import builtins
import dataclasses
import errno
import itertools
import json
import math
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from stored import add, content, filled, level, network, plain, run_record, state

from sparsight.checkpoint import writing
from sparsight.records import files
from sparsight.records import packing as pack
from sparsight.records.files import DamagedFile
from sparsight.records.folder import RunFolder
from sparsight.records.identity import run_id
from sparsight.records.record import Evaluation, dumps, to_json
from sparsight.records.tensors import write_tensors


@pytest.fixture(autouse=True)
def _fast_disk(monkeypatch):
    """Whether the disk is told to flush is tested in test_files.py; here only that it may fail."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="module")
def running(tmp_path_factory) -> Path:
    return filled(tmp_path_factory.mktemp("running") / "run")


@pytest.fixture
def run(running, tmp_path) -> Path:
    """A copy of a run that is under way: three levels, a control, and a state inside the next level."""
    return Path(shutil.copytree(running, tmp_path / "run"))


# -- steps -----------------------------------------------------------------------------------------------------

STEPS = ("open", "fsync", "replace", "unlink", "mkdir", "rmdir")  # of os; and `open` and `write` of files


class Killed(BaseException):
    """Stands for `kill -9`: whatever is called after it does nothing either."""


class Stumble:
    """Counts the steps by which files are made, changed and removed, and raises `error` at step `at`.

    A dead process takes no further step; after an OSError the rest is done. A write that fails has written half.
    """

    def __init__(self, patch: pytest.MonkeyPatch, at: int, error: BaseException) -> None:
        self.taken, self.at, self.error = 0, at, error
        for name in STEPS:
            patch.setattr(os, name, self.watched(getattr(os, name)))
        opened = self.watched(builtins.open)
        patch.setattr(writing, "open", lambda *args: self.file(opened(*args)), raising=False)

    @property
    def stumbled(self) -> bool:
        return self.taken > self.at

    def watched(self, act: Callable[..., Any], half: Callable[..., Any] | None = None) -> Callable[..., Any]:
        def step(*args: Any, **kwargs: Any) -> Any:
            self.taken += 1
            if self.taken == self.at + 1 or (self.stumbled and isinstance(self.error, Killed)):
                if half is not None:
                    half(*args)
                raise self.error
            return act(*args, **kwargs)

        return step

    def file(self, file: Any) -> Any:
        write = file.write
        halved = self.watched(write, lambda chunk: write(bytes(chunk)[: len(bytes(chunk)) // 2]))
        return _Watched(file, halved)


@dataclasses.dataclass
class _Watched:
    """A file whose `write` is another."""

    file: Any
    write: Callable[..., Any]

    def __enter__(self) -> _Watched:
        return self

    def __exit__(self, *about: Any) -> None:
        self.file.__exit__(*about)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


OPERATIONS: dict[str, Callable[[RunFolder], Any]] = {
    "keep_level": lambda folder: add(folder, 3) if len(folder.levels()) == 4 else None,
    "keep_progress": lambda folder: folder.keep_progress(state(6)),
    "keep_rewind_point": lambda folder: folder.keep_rewind_point(network(9)[0]),
    "update": lambda folder: folder.update(status="interrupted"),
    "save_evaluation": lambda folder: folder.save_evaluation(Evaluation(())),
    "save_chosen": lambda folder: folder.save_chosen(folder.levels()[2], "second thoughts"),
    "drop_levels": lambda folder: folder.drop_levels(min(2, len(folder.levels()))),
}
WHOLE = ("keep_level", "keep_progress", "keep_rewind_point", "update", "save_evaluation")
"""Those after which there is the old state or the new one; the others are repeated until they are through."""


def reading(path: Path) -> dict[str, Any]:
    with RunFolder.open(path) as folder:
        return content(folder)


@pytest.mark.parametrize("name", OPERATIONS)
def test_killed_at_any_step_the_folder_is_as_before_or_as_after(running, tmp_path, monkeypatch, name):
    act, old = OPERATIONS[name], reading(running)
    with RunFolder.open(Path(shutil.copytree(running, tmp_path / "whole")), write=True) as folder:
        act(folder)
        new = content(folder)
    for at in itertools.count():
        path = Path(shutil.copytree(running, tmp_path / f"{at}"))
        with RunFolder.open(path, write=True) as folder, monkeypatch.context() as patch, suppress(Killed):
            stumble = Stumble(patch, at, Killed())
            act(folder)
        if not stumble.stumbled:
            break
        found = reading(path)  # nothing in it contradicts the rest
        if name in WHOLE:
            assert found in (old, new), at
        with RunFolder.open(path, write=True) as folder:
            assert not list(path.rglob("*.part")), at
            act(folder)
            assert content(folder) == new, at
        shutil.rmtree(path)
    assert at >= 6
    assert reading(path) == new != old or name == "keep_rewind_point"


def test_killed_at_any_step_of_its_making_a_run_can_be_made_there(tmp_path, monkeypatch):
    for at in itertools.count():
        path = tmp_path / f"{at}" / "run"
        with monkeypatch.context() as patch, suppress(Killed):
            stumble = Stumble(patch, at, Killed())
            RunFolder.create(path, run_record()).close()
        if not stumble.stumbled:
            break
        if not (path / "run.json").exists():
            RunFolder.create(path, run_record()).close()
        with RunFolder.open(path, write=True) as folder:
            assert folder.levels() == ()
            assert sorted(p.name for p in path.iterdir()) == ["levels.jsonl", "run.json", "run.lock"]
    assert at >= 15


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("keep_level", errno.ENOSPC),
        ("drop_levels", errno.EIO),
        ("keep_progress", errno.EROFS),
        ("keep_progress", errno.EIO),
    ],
)
def test_a_step_that_fails_names_the_file_and_can_be_repeated(running, tmp_path, monkeypatch, name, code):
    """In the same process: when there is room again, it goes on."""
    act, old = OPERATIONS[name], reading(running)
    for at in itertools.count():
        path = Path(shutil.copytree(running, tmp_path / f"{at}"))
        with RunFolder.open(path, write=True) as folder:
            with monkeypatch.context() as patch:
                stumble, caught = Stumble(patch, at, OSError(code, os.strerror(code))), None
                try:
                    act(folder)
                except OSError as error:
                    caught = error
            if not stumble.stumbled:
                assert caught is None
                break
            if caught is not None:
                assert caught.errno == code
                assert f"cannot write {path}" in str(caught), str(caught)
                assert os.strerror(code) in str(caught)
                assert "what was stored before is intact" in str(caught)
                assert not list(path.rglob("*.part"))
            if name != "drop_levels" and caught is not None:
                found = content(folder)
                assert found == reading(path)
                assert found["levels"] == old["levels"] or len(found["levels"]) == 5
            act(folder)
            done = content(folder)
        assert done == reading(path)
        assert len(done["levels"]) == {"keep_level": 5, "keep_progress": 4, "drop_levels": 2}[name]
        shutil.rmtree(path)
    assert at >= 6


def test_a_lock_or_a_folder_that_cannot_be_made(tmp_path, monkeypatch):
    for name, place in (("mkdir", tmp_path / "r"), ("open", tmp_path / "r" / "run.lock")):
        with monkeypatch.context() as patch:
            real = getattr(os, name)

            def refuse(path, *args, real=real, place=place, **kwargs):
                if str(path) == str(place):
                    raise OSError(errno.EROFS, "Read-only file system")
                return real(path, *args, **kwargs)

            patch.setattr(os, name, refuse)
            with pytest.raises(OSError, match=f"cannot write {place}: Read-only file system"):
                RunFolder.create(tmp_path / "r", run_record())
    RunFolder.create(tmp_path / "r", run_record()).close()


# -- what is written and read --------------------------------------------------------------------------------------


def test_state_is_written_once_and_shared_tensors_are_too(tmp_path, monkeypatch):
    weights = {f"{i}": torch.randn(256, 256) for i in range(4)}  # 1 MiB
    written = []
    with RunFolder.create(tmp_path / "r", run_record()) as folder:
        opened = builtins.open
        monkeypatch.setattr(writing, "open", lambda *args: _counting(opened(*args), written), raising=False)
        folder.keep_progress({"weights": weights, "optimizer": [weights["0"], {"again": weights["1"]}]})
    total = 4 * 256 * 256 * 4
    assert total < sum(written) < total + 8192
    assert sorted(written, reverse=True)[:5] == [256 * 256 * 4] * 4 + [max(w for w in written if w < 256 * 256 * 4)]


def _counting(file: Any, written: list[int]) -> Any:
    write = file.write
    return _Watched(file, lambda chunk: (written.append(memoryview(chunk).nbytes), write(chunk))[1])


def test_levels_are_parsed_once_however_often_state_is_saved(run, monkeypatch):
    seen = []
    read = files.read_lines
    monkeypatch.setattr(files, "read_lines", lambda path, remedy: (seen.append(path.name), read(path, remedy))[1])
    with RunFolder.open(run, write=True) as folder:
        for _ in range(5):
            folder.keep_progress(state(5))
        add(folder, 3)
        for _ in range(5):
            folder.keep_progress(state(6))
        add(folder, 4)
    assert seen.count("levels.jsonl") == 1
    assert seen.count("times.jsonl") == 2


def test_levels_whose_weights_are_gone_cannot_be_gone_on_from(tmp_path):
    with RunFolder.open(filled(tmp_path / "r", finished=True, keep="last"), write=True) as folder:
        folder.discard()
        with pytest.raises(ValueError, match="cannot keep 3 levels of .* weights of level 0.* are missing"):
            folder.drop_levels(3)
        assert folder.record.status == "finished"
        folder.drop_levels(0)
        assert folder.levels() == ()


@pytest.mark.parametrize("keep", ["chosen", "last"])
def test_a_record_that_holds_a_nan_is_kept_as_any_other(tmp_path, keep):
    """Such a record is not equal to itself when it is read again."""
    path = filled(tmp_path / "r", finished=True, keep=keep, loss=math.nan)
    with RunFolder.open(path, write=True) as folder:
        folder.discard()
    assert [p.parent.name for p in path.glob("levels/*/model.safetensors")] == (["002"] if keep == "last" else [])
    with RunFolder.open(path) as folder:
        assert plain(folder.chosen()) == plain(network(1))
        assert plain(folder.weights(folder.levels()[1])) == plain(network(1)[0])
    (path / "levels/002/model.safetensors").unlink(missing_ok=True)
    with RunFolder.open(path) as folder:
        lost = (DamagedFile, "the file is missing") if keep == "last" else (FileNotFoundError, "were not kept")
        with pytest.raises(lost[0], match=lost[1]):
            folder.weights(folder.levels()[2])


def test_the_chosen_network_is_mended_from_its_level(tmp_path):
    path = filled(tmp_path / "r", finished=True)
    (path / "model.safetensors").write_bytes(b"")
    with RunFolder.open(path) as folder:
        with pytest.raises(DamagedFile, match="copy levels/001/model.safetensors over it"):
            folder.chosen()
        shutil.copy(path / "levels/001/model.safetensors", path)
        assert plain(folder.chosen()) == plain(network(1))


# -- good checksums ------------------------------------------------------------------------------------------------


def refused(run: Path, name: str, read: Callable[[RunFolder], Any], match: str | None = None) -> None:
    """DamagedFile, which names the file and what to do, in a few words."""
    with pytest.raises(DamagedFile, match=match) as caught, RunFolder.open(run) as folder:
        read(folder)
    assert caught.value.path == run / name
    assert str(run / name) in str(caught.value)
    assert len(caught.value.remedy) > 8
    assert len(str(caught.value)) < 1000


def test_another_rewind_point_of_the_same_run(run):
    with RunFolder.open(run, write=True) as folder:
        folder.keep_rewind_point(network(8)[0])
    refused(run, "rewind.safetensors", lambda folder: folder.rewind_point(), "do not have the checksum in levels.jsonl")


def test_right_id_but_other_tensors(run):
    about = {"kind": "model", "run": run_id(run_record()), "id": level(2).id}
    write_tensors(run / "levels/002/model.safetensors", network(1)[0], about)
    with RunFolder.open(run) as folder, pytest.raises(DamagedFile, match="do not have the checksum in levels.jsonl"):
        folder.weights(folder.levels()[2])


class TestCrafted:
    """Files with good checksums that no sparsight of this version wrote."""

    def about(self, kind: str) -> dict:
        return {"kind": kind, "run": run_id(run_record())}

    @pytest.mark.parametrize(
        ("line", "match"),
        [
            (dumps({**to_json(level(0)), "schema": 2}), "got 2, expected 1"),
            (dumps({**to_json(level(0)), "colour": 1}), "colour"),
            (dumps({**to_json(level(0)), "epochs": "many"}), "levels.jsonl.epochs: must be a number, got 'many'"),
            (dumps({**to_json(level(0)), "epochs": 10**400}), "epochs"),
            (dumps({**to_json(level(0)), "role": ["level"]}), "role"),
            (dumps(to_json(level(0))).replace("1.0", "NaN", 1), "NaN"),
            ("[" * 100_000, "JSON"),
            ('{"operation":' + "[" * 900 + "]" * 900 + "}", "levels.jsonl"),
            ("[]", "must be a mapping, got"),
            ("", "JSON"),
        ],
    )
    def test_lines(self, run, line, match):
        files.write_lines(run / "levels.jsonl", [line], self.about("levels"))
        refused(run, "levels.jsonl", lambda folder: folder.levels(), match)

    @pytest.mark.parametrize(
        "fields",
        [
            {},
            {"levels": 4},
            {"levels": 4, "skeleton": {"tensor": "7"}},
            {"levels": 4, "skeleton": {"tensor": "0", "stride": [2**50, 2**45]}},
            {"skeleton": {"tensor": "0", "stride": [100, 7]}},
            {"levels": 4, "skeleton": {"dict": [[["a"], 1]]}},
            {"levels": 4, "skeleton": {"float": "much"}},
        ],
    )
    def test_state(self, run, fields):
        write_tensors(run / "state.safetensors", {"0": torch.ones(2, 3)}, {**self.about("state"), "levels": 4} | fields)
        refused(run, "state.safetensors", lambda folder: folder.progress())

    @pytest.mark.parametrize(
        "shapes",
        [None, 3, {"a.weight": "ab"}, {"a.weight": [2**60, 2**60]}, {"a.weight": [-3, -5]}, {"a.weight": [3.0, 5]}],
    )
    def test_masks(self, run, shapes):
        packed, _ = pack.pack_masks(network(2)[1])
        about = {**self.about("masks"), "id": level(2).id}
        write_tensors(run / "levels/002/masks.safetensors", packed, {**about, "shapes": shapes})
        with RunFolder.open(run) as folder, pytest.raises(DamagedFile) as caught:
            folder.masks(dataclasses.replace(folder.levels()[2], files={}))
        assert caught.value.path == run / "levels/002/masks.safetensors"

    @pytest.mark.parametrize("record", [None, [], {"entries": 3}, {"entries": [], "schema": 9}])
    def test_evaluation(self, run, record):
        files.write_json(run / "evaluation.json", {**self.about("evaluation"), "record": record})
        refused(run, "evaluation.json", lambda folder: folder.evaluation())

    @pytest.mark.parametrize("depth", [*range(100, 1000, 50), 10**5])
    def test_nesting(self, run, depth):
        (run / "evaluation.json").write_text('{"schema":1,"record":' + "[" * depth + "]" * depth + "}\n")
        refused(run, "evaluation.json", lambda folder: folder.evaluation())

    @pytest.mark.parametrize("fields", [{"kind": "x" * 10**5}, {"run": "x" * 10**5}, {"id": "x" * 10**5}, {}])
    def test_what_is_said_of_long_values_is_short(self, run, fields):
        about = {**self.about("model"), "id": level(2).id} | fields
        write_tensors(run / "levels/002/model.safetensors", network(1)[0], about)
        files.write_lines(
            run / "levels.jsonl",
            [dumps(dataclasses.replace(level(2), files={"levels/002/model.safetensors": "x" * 10**5}))],
            self.about("levels"),
        )
        with RunFolder.open(run) as folder, pytest.raises(DamagedFile) as caught:
            folder.weights(folder.levels()[0])
        assert len(str(caught.value)) < 1000

    def test_run(self, run):
        files.write_json(run / "run.json", {"kind": "run", "record": {**to_json(run_record()), "keep": "some"}})
        refused(
            run,
            "run.json",
            lambda folder: folder.record,
            "run.json.keep: must be 'all', 'packed', 'chosen' or 'last', got 'some'",
        )
        (run / "run.json").write_text(json.dumps({"kind": "run", "schema": 1}) + "\n")
        refused(run, "run.json", lambda folder: folder.record, "checksum")
