from __future__ import annotations

import ast
import dataclasses
import errno
import inspect
import os
import pickle
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from sparsight.records import files, identity, new_folder
from sparsight.records import folder as store
from sparsight.records import packing as pack
from sparsight.records.files import DamagedFile
from sparsight.records.folder import RunFolder
from sparsight.records.identity import content_id
from sparsight.records.journal import LevelResult
from sparsight.records.new_folder import LockedRun, next_folder
from sparsight.records.record import Evaluated, Evaluation, Layer, LevelRecord, LevelTimes, RunRecord, to_json
from sparsight.records.tensors import tensors_digest
from sparsight.records.verify import verify_run
from sparsight.train.observation import Observation
from sparsight.types import GroupRecord

RUN = RunRecord(
    recipe="sap", arguments={}, description={"epochs": 2}, seed=3, data={"name": "digits"}, model={"type": "mlp"},
    environment={"device": "cpu", "threads": 1}, keep="all", status="running", started="2020-01-01T00:00:00+00:00",
)  # fmt: skip
LEVELS = 2
CHOSEN = 0


def run(**changes) -> RunRecord:
    return dataclasses.replace(RUN, **changes)


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2, bias=False))


CONTROL = 5  # a level whose content the control takes


def masks_of(level: int) -> dict[str, torch.Tensor]:
    masks = {n: torch.ones(p.shape, dtype=torch.bool) for n, p in network(0).named_parameters() if p.ndim == 2}
    masks["0.weight"].view(-1)[: 2 * level] = False
    return masks


def weights_of(level: int) -> dict[str, torch.Tensor]:
    return {**network(level).state_dict()}


def record_of(level: int, role: str = "level") -> LevelRecord:
    masks = masks_of(level)
    kept, total = (sum(int(f(m)) for m in masks.values()) for f in (torch.sum, torch.numel))
    return LevelRecord(
        level=level, role=role, id=content_id(weights_of(level), masks), parent=None, operation={"rounds": []},
        kept=kept, total=total, layers=(Layer("0.weight", (4, 3), 1, 12, (0.5,)),), pq_pairs=((0.5, 1.0),), pq=(0.25,),
        groups=(GroupRecord("global", 20, 2, float("nan")),), floors=(), collapsed=(),
        observations=(Observation(1, 10, values={"x": 1}),), epochs=1.0, steps=10,
    )  # fmt: skip


def add(folder: RunFolder, level: int, role: str = "level") -> LevelRecord:
    times = LevelTimes(level, role, train=0.5)
    return folder.keep_level(LevelResult(record_of(level, role), times, weights_of(level), masks_of(level))).record


def state_of(level: int, epoch: int) -> dict:
    moments = {0: {"step": torch.tensor(3.0), "exp_avg": torch.full((2,), float(epoch))}}
    return {"level": level, "epoch": epoch, "model": weights_of(epoch), "optimizer": {"state": moments, "lr": 0.1}}


def go_on(path: Path, record: RunRecord) -> None:
    """What a run does, from wherever it was: rewind point, levels of two epochs, choice, evaluation, end."""
    new = not (path / "run.json").exists()
    with RunFolder.create(path, record) if new else RunFolder.open(path, write=True) as folder:
        if folder.rewind_point() is None and not folder.levels():
            folder.keep_rewind_point(weights_of(9))
        for level in range(len(folder.levels()), LEVELS):
            state = folder.progress()
            assert state is None or state["level"] == level
            for epoch in range(0 if state is None else state["epoch"], 2):
                folder.keep_progress(state_of(level, epoch + 1))
            add(folder, level)
        if folder.record.chosen is None:
            folder.save_chosen(folder.levels()[CHOSEN], "because")
        if folder.evaluation() is None:
            folder.save_evaluation(Evaluation((Evaluated(1, "level", folder.levels()[1].id, 0.5, 0.1, 7),)))
        if folder.record.status != "finished":
            folder.update(status="finished", ended="2020-01-02T00:00:00+00:00")
        folder.discard()


def contents(path: Path) -> dict[str, bytes]:
    found = (file for file in path.rglob("*") if file.is_file() and file.name != "run.lock")
    return {str(file.relative_to(path)): file.read_bytes() for file in found}


@pytest.fixture(autouse=True)
def _fast_disk(monkeypatch, request):
    """Whether the disk is told to flush is tested in test_files.py; here it would only take time."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def path(tmp_path) -> Path:
    """A run that is under way: two levels, the control, and a state inside the next level."""
    with RunFolder.create(tmp_path / "run", run()) as folder:
        folder.keep_rewind_point(weights_of(9))
        add(folder, 0)
        add(folder, 1)
        add(folder, CONTROL, "control")
        folder.save_chosen(folder.levels()[1], "sparsest")
        folder.save_evaluation(Evaluation((Evaluated(1, "level", folder.levels()[1].id, 0.5, 0.1, 7),)))
        folder.keep_progress(state_of(2, 1))
    return tmp_path / "run"


class TestWhatIsStored:
    def test_comes_back(self, path):
        with RunFolder.open(path) as folder:
            levels = folder.levels()
            assert [(r.level, r.role) for r in levels] == [(0, "level"), (1, "level"), (CONTROL, "control")]
            assert [(t.level, t.role, t.train) for t in folder.times()] == [
                (0, "level", 0.5),
                (1, "level", 0.5),
                (CONTROL, "control", 0.5),
            ]
            for record in levels:
                expected = dataclasses.replace(record_of(record.level, record.role), files=record.files)
                assert to_json(record) == to_json(expected)
                assert tensors_digest(folder.weights(record)) == tensors_digest(weights_of(record.level))
                assert tensors_digest(folder.masks(record)) == tensors_digest(masks_of(record.level))
                assert content_id(folder.weights(record), folder.masks(record)) == record.id
            assert tensors_digest(folder.chosen()[0]) == tensors_digest(weights_of(1))
            assert list(folder.chosen()[0]) == list(weights_of(1))
            assert tensors_digest(folder.chosen()[1]) == tensors_digest(masks_of(1))
            assert tensors_digest(folder.rewind_point()) == tensors_digest(weights_of(9))
            assert folder.evaluation().entries[0].test_accuracy == 0.5
            assert folder.record.chosen.why == "sparsest"
            state, expected = folder.progress(), state_of(2, 1)
            assert tensors_digest(state.pop("model")) == tensors_digest(expected.pop("model"))
            assert repr(state) == repr(expected)

    def test_files_of_a_record_are_those_written_for_it(self, path):
        with RunFolder.open(path) as folder:
            for record in folder.levels():
                place = "levels/control" if record.role == "control" else f"levels/{record.level:03d}"
                assert {f"{place}/model.safetensors", f"{place}/masks.safetensors"} <= set(record.files)
                for relative, digest in record.files.items():
                    assert tensors_digest(safetensors.torch.load_file(path / relative)) == digest

    def test_model_loads_into_the_plain_network(self, path):
        net = network(0)
        net.load_state_dict(safetensors.torch.load_file(path / "model.safetensors"), strict=True)
        assert tensors_digest(net.state_dict()) == tensors_digest(weights_of(1))

    def test_masks_take_a_bit_a_weight(self, path):
        stored = safetensors.torch.load_file(path / "levels/000/masks.safetensors")
        assert {n: t.numel() for n, t in stored.items()} == {"0.weight": 2, "2.weight": 1}

    def test_nothing_yet(self, tmp_path):
        with RunFolder.create(tmp_path / "r", run()) as folder:
            assert (folder.levels(), folder.times()) == ((), ())
            assert folder.progress() is None
            assert folder.rewind_point() is None
            assert folder.evaluation() is None
            with pytest.raises(ValueError, match="no level of .* chosen yet"):
                folder.chosen()

    def test_state_is_of_the_present_level_only(self, path, monkeypatch):
        with RunFolder.open(path, write=True) as folder:
            assert folder.progress()["level"] == 2
            kept = (path / "state.safetensors").read_bytes()
            add(folder, 2)
            assert not (path / "state.safetensors").exists()
            (path / "state.safetensors").write_bytes(kept)  # as if killed before it was removed
            assert folder.progress() is None

    def test_refusals(self, path):
        with RunFolder.open(path, write=True) as folder:
            with pytest.raises(ValueError, match="already has level 1"):
                add(folder, 1)
            with pytest.raises(ValueError, match="but its content has"):
                folder.keep_level(LevelResult(record_of(2), LevelTimes(2, "level"), weights_of(3), masks_of(2)))
            with pytest.raises(ValueError, match="seed.*another run"):
                folder.update(seed=4)
            with pytest.raises(ValueError, match="the run is running"):
                folder.discard()
            with pytest.raises(ValueError, match="cannot keep 4 of 3 levels"):
                folder.drop_levels(4)
            assert len(folder.levels()) == 3
        before = contents(path)
        with RunFolder.open(path) as folder:
            for write in (
                lambda: add(folder, 2),
                lambda: folder.update(status="failed"),
                lambda: folder.keep_progress({}),
            ):
                with pytest.raises(RuntimeError, match="open the folder with write=True"):
                    write()
        assert contents(path) == before

    def test_dropping_levels_lets_them_be_trained_again(self, path):
        before = contents(path)
        with RunFolder.open(path, write=True) as folder:
            folder.drop_levels(1)
            assert [r.level for r in folder.levels()] == [0]
            assert (folder.record.chosen, folder.evaluation(), folder.progress()) == (None, None, None)
            assert not (path / "levels/001").exists()
            add(folder, 1)
            add(folder, CONTROL, "control")
        after = contents(path)
        assert all(after[name] == before[name] for name in before if name.startswith("levels"))


class TestFolders:
    def test_next_folder_never_takes_one_that_exists(self, tmp_path):
        root = tmp_path / "a" / "runs"
        assert next_folder(root, "sap").name == "sap-001"
        (root / "sap-007").mkdir()
        (root / "sap-x").mkdir()
        (root / "sap-extra-099").mkdir()
        (root / "sap-008").write_text("a file")
        assert next_folder(root, "sap").name == "sap-009"
        assert next_folder(root, "lottery").name == "lottery-001"

    def test_two_that_ask_at_once_get_two_folders(self, tmp_path, monkeypatch):
        monkeypatch.setattr(Path, "glob", lambda self, pattern: iter(()))  # neither sees what the other makes
        assert [next_folder(tmp_path, "sap").name for _ in range(3)] == ["sap-001", "sap-002", "sap-003"]

    @pytest.mark.parametrize("name", ["", "a/b", "../x", "/x"])
    def test_names_that_are_no_folder_names(self, tmp_path, name):
        with pytest.raises(ValueError, match="plain file name"):
            next_folder(tmp_path, name)

    def test_a_file_in_the_way(self, tmp_path):
        (tmp_path / "runs").write_text("x")
        for root in (tmp_path / "runs", tmp_path / "runs" / "deeper"):
            with pytest.raises(OSError, match=f"cannot write {tmp_path}/runs.*"):
                next_folder(root, "sap")
        with pytest.raises(OSError, match=f"cannot write {tmp_path}/runs"):
            RunFolder.create(tmp_path / "runs", run())

    def test_a_read_only_folder(self, tmp_path, monkeypatch):
        def refuse(self, *args, **kwargs):
            raise PermissionError(errno.EACCES, "Permission denied", str(self))

        monkeypatch.setattr(Path, "mkdir", refuse)
        with pytest.raises(PermissionError, match=f"cannot write {tmp_path}/sap-001: Permission denied.*permission"):
            next_folder(tmp_path, "sap")

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
    def test_a_run_that_may_only_be_read(self, path):
        path.chmod(0o500)
        (path / "run.lock").chmod(0o400)
        try:
            with RunFolder.open(path) as folder:
                assert len(folder.levels()) == 3
            with pytest.raises(PermissionError, match="cannot write"):
                RunFolder.open(path, write=True)
        finally:
            path.chmod(0o700)

    def test_a_run_is_never_written_over(self, path, tmp_path):
        before = contents(path)
        with pytest.raises(FileExistsError, match="cannot start a run in .*run: it holds"):
            RunFolder.create(path, run(seed=5))
        assert contents(path) == before
        with pytest.raises(FileNotFoundError, match=r"is not a run folder: it has no run\.json"):
            RunFolder.open(tmp_path)

    def test_left_halves_are_removed_by_a_writer_and_ignored_by_a_reader(self, path):
        part = path / "levels" / "000" / ".model.safetensors.1-2.part"
        part.write_bytes(b"half")
        with RunFolder.open(path) as folder:
            folder.weights(folder.levels()[0])
        assert part.exists()
        RunFolder.open(path, write=True).close()
        assert not part.exists()


class TestKeep:
    def finished(self, path: Path, keep: str) -> RunFolder:
        go_on(path, run(keep=keep))
        return RunFolder.open(path)

    @pytest.mark.parametrize(("keep", "there"), [("all", [0, 1]), ("packed", [0, 1]), ("chosen", []), ("last", [1])])
    def test_weights_that_stay(self, tmp_path, keep, there):
        with self.finished(tmp_path / "r", keep) as folder:
            stored = sorted(int(file.parent.name) for file in tmp_path.glob("r/levels/*/model.safetensors"))
            assert stored == there
            assert (tmp_path / "r/rewind.safetensors").exists() == (keep in ("all", "packed"))
            for record in folder.levels():
                assert tensors_digest(folder.masks(record)) == tensors_digest(masks_of(record.level))
                assert len([name for name in record.files if "model" in name]) == 1
                if record.level in (*there, CHOSEN):  # the chosen one lies at the top
                    assert tensors_digest(folder.weights(record)) == tensors_digest(weights_of(record.level))
                else:
                    with pytest.raises(FileNotFoundError, match=f"level {record.level} were not kept.*keep='{keep}'"):
                        folder.weights(record)

    def test_records_do_not_depend_on_it(self, tmp_path):
        for keep in ("all", "packed", "chosen", "last"):
            self.finished(tmp_path / keep, keep)
        lines = {(tmp_path / keep / "levels.jsonl").read_bytes() for keep in ("all", "packed", "chosen", "last")}
        assert len(lines) == 1

    def test_packed_levels_are_small_and_their_damage_is_told(self, tmp_path):
        torch.manual_seed(0)
        w = torch.where(torch.rand(200, 300) < 0.1, torch.randn(200, 300), torch.zeros(()))
        weights, masks = {"w": w, "tied": w, "b": torch.randn(300)}, {"w": w != 0}
        record = dataclasses.replace(record_of(0), id=content_id(weights, masks))
        with RunFolder.create(tmp_path / "r", run(keep="packed")) as folder:
            folder.keep_level(LevelResult(record, LevelTimes(0, "level"), weights, masks))
        file = tmp_path / "r/levels/000/model.safetensors"
        assert file.stat().st_size < w.nbytes / 8
        with RunFolder.open(tmp_path / "r") as folder:
            found = folder.weights(folder.levels()[0])
            assert list(found) == ["w", "tied", "b"]
            assert tensors_digest(found) == tensors_digest(weights)
            assert found["tied"].data_ptr() != found["w"].data_ptr()
        assert verify_run(tmp_path / "r") == ()
        content = bytearray(file.read_bytes())
        content[-100] ^= 1
        file.write_bytes(content)
        (damage,) = verify_run(tmp_path / "r")
        assert damage.path == file
        assert "checksum" in damage.what

    def test_everything_stays_until_the_end_and_a_lost_file_is_damage(self, path):
        (path / "levels/000/model.safetensors").unlink()
        with (
            RunFolder.open(path) as folder,
            pytest.raises(DamagedFile, match=r"000/model.*file is missing.*drop_levels\(0\)"),
        ):
            folder.weights(folder.levels()[0])

    def test_nothing_goes_while_the_chosen_network_is_damaged(self, tmp_path):
        with RunFolder.create(tmp_path / "r", run(keep="chosen")) as folder:
            add(folder, 0)
            folder.update(status="finished")
            with pytest.raises(ValueError, match="chosen yet"):
                folder.discard()
            folder.save_chosen(folder.levels()[0], "only one")
            data = (tmp_path / "r/model.safetensors").read_bytes()
            (tmp_path / "r/model.safetensors").write_bytes(data[:-1])
            with pytest.raises(DamagedFile):
                folder.discard()
            assert (tmp_path / "r/levels/000/model.safetensors").exists()


READERS = {
    "run.json": lambda f: RunFolder.open(f.path).close(),
    "levels.jsonl": lambda f: f.levels(),
    "times.jsonl": lambda f: f.times(),
    "evaluation.json": lambda f: f.evaluation(),
    "state.safetensors": lambda f: f.progress(),
    "rewind.safetensors": lambda f: f.rewind_point(),
    "model.safetensors": lambda f: f.chosen(),
    "masks.safetensors": lambda f: f.chosen(),
    "levels/001/model.safetensors": lambda f: f.weights(f.levels()[1]),
    "levels/001/masks.safetensors": lambda f: f.masks(f.levels()[1]),
    "levels/control/model.safetensors": lambda f: f.weights(f.levels()[2]),
    "levels/control/masks.safetensors": lambda f: f.masks(f.levels()[2]),
}


def check_damaged(folder: RunFolder, name: str) -> DamagedFile:
    with pytest.raises(DamagedFile) as caught:
        READERS[name](folder)
    assert caught.value.path == folder.path / name
    assert str(folder.path / name) in str(caught.value)
    assert len(caught.value.remedy) > 10
    return caught.value


class TestDamage:
    @pytest.mark.parametrize("name", READERS)
    def test_cut_or_flipped_anywhere(self, path, name):
        data = (path / name).read_bytes()
        step = max(1, len(data) // 40)
        cut = [data[:i] for i in [*range(0, len(data), step), len(data) - 1]]
        bits = range(0, 8 * len(data), max(1, len(data) // 12))
        flipped = [data[: b // 8] + bytes([data[b // 8] ^ (1 << b % 8)]) + data[b // 8 + 1 :] for b in bits]
        with RunFolder.open(path) as folder:
            READERS[name](folder)
            for damaged in (*cut, *flipped):
                (path / name).write_bytes(damaged)
                check_damaged(folder, name)

    @pytest.mark.parametrize("name", READERS)
    def test_another_file_of_the_run_in_its_place(self, path, name):
        data, others = (path / name).read_bytes(), contents(path)
        with RunFolder.open(path) as folder:
            for other in others.values():
                # The chosen network is the very file of its level, and the control's masks are those of level 0.
                if other != data:
                    (path / name).write_bytes(other)
                    check_damaged(folder, name)

    @pytest.mark.parametrize("name", READERS)
    def test_the_same_file_of_another_run_in_its_place(self, path, tmp_path, name):
        shutil.copytree(path, tmp_path / "other")
        for file in (tmp_path / "other").rglob("*.*"):
            if file.name not in ("run.json", "run.lock"):
                file.unlink()
        (tmp_path / "other/run.json").unlink()
        shutil.rmtree(tmp_path / "other/levels")
        with RunFolder.create(tmp_path / "other", run(seed=4)) as folder:
            folder.keep_rewind_point(weights_of(9))
            add(folder, 0)
            add(folder, 1)
            add(folder, CONTROL, "control")
            folder.save_chosen(folder.levels()[1], "sparsest")
            folder.save_evaluation(Evaluation(()))
            folder.keep_progress(state_of(2, 1))
        shutil.copy(tmp_path / "other" / name, path / name)
        if name == "run.json":  # the run that it speaks of is another: so are all the other files then
            with RunFolder.open(path) as folder:
                check_damaged(folder, "levels.jsonl")
            return
        with RunFolder.open(path) as folder:
            assert "another run" in check_damaged(folder, name).what

    @pytest.mark.parametrize(
        "name", [n for n in READERS if n.split("/")[-1] not in ("evaluation.json", "times.jsonl", "state.safetensors")]
    )
    def test_missing(self, path, name):
        with RunFolder.open(path) as folder:
            (path / name).unlink()
            if name == "run.json":
                with pytest.raises(FileNotFoundError):
                    RunFolder.open(path)
            else:
                check_damaged(folder, name)

    def test_what_may_be_deleted(self, path):
        for name in ("times.jsonl", "evaluation.json", "state.safetensors"):
            (path / name).write_text("x")
        with RunFolder.open(path, write=True) as folder:
            for name in ("times.jsonl", "evaluation.json", "state.safetensors"):
                assert "delete it" in check_damaged(folder, name).remedy
                (path / name).unlink()
            assert (folder.times(), folder.evaluation(), folder.progress()) == ((), None, None)
            add(folder, 2)
            assert [t.level for t in folder.times()] == [2]

    def test_the_remedy_works(self, path):
        data = (path / "levels/001/model.safetensors").read_bytes()
        (path / "levels/001/model.safetensors").write_bytes(data[:-3])
        with RunFolder.open(path, write=True) as folder:
            assert "drop_levels(1)" in check_damaged(folder, "levels/001/model.safetensors").remedy
            folder.drop_levels(1)
            add(folder, 1)
        assert (path / "levels/001/model.safetensors").read_bytes() == data

    def test_a_valid_checksum_does_not_excuse_a_wrong_field(self, path):
        fields = files.read_json(path / "run.json", "")
        for key, value in (("status", "asleep"), ("schema", 2), ("seed", "3"), ("colour", 1)):
            files.write_json(path / "run.json", {**fields, "record": {**fields["record"], key: value}})
            with pytest.raises(DamagedFile, match=rf"run\.json.*{key}"):
                RunFolder.open(path)


class Killed(BaseException):
    """Stands for `kill -9`: nothing is cleaned up after it."""


class Killer:
    """Lets `after` renames and removals pass; then the process is dead, before or after the next one took place."""

    def __init__(self, monkeypatch, after: int, done: bool) -> None:
        self.steps, self.after, self.done, self.dead = 0, after, done, False
        replace, unlink = os.replace, Path.unlink
        monkeypatch.setattr(os, "replace", lambda a, b: self.step(lambda: replace(a, b)))
        monkeypatch.setattr(Path, "unlink", lambda p, missing_ok=False: self.step(lambda: unlink(p, missing_ok)))

    def step(self, act) -> None:
        if self.dead:
            return
        if self.steps == self.after:
            self.dead = True
            if self.done:
                act()
            raise Killed
        self.steps += 1
        act()


def test_killed_at_any_step_it_ends_as_if_undisturbed(tmp_path, monkeypatch):
    record = run(keep="chosen")
    go_on(tmp_path / "whole", record)
    whole = contents(tmp_path / "whole")

    def killed_after(steps: int, done: bool, path: Path) -> int:
        with monkeypatch.context() as patch:
            killer = Killer(patch, steps, done)
            go_on(path, record)
        return killer.steps

    steps = killed_after(10**9, False, tmp_path / "count")  # never
    assert contents(tmp_path / "count") == whole
    assert steps > 20
    for step in range(steps):
        for done in (False, True):
            path = tmp_path / f"{step}-{done}"
            with pytest.raises(Killed):
                killed_after(step, done, path)
            if (path / "run.json").exists():
                check_listed(path)
            go_on(path, record)
            assert contents(path) == whole, (step, done)
            shutil.rmtree(path)


def check_listed(path: Path) -> None:
    """What levels.jsonl lists is there, whole."""
    with RunFolder.open(path) as folder:
        for record in folder.levels():
            folder.masks(record)
            if folder.record.status != "finished":
                folder.weights(record)
        assert len(folder.times()) == len(folder.levels())


class TestLock:
    def test_one_writer_many_readers(self, path):
        with RunFolder.open(path, write=True):
            with pytest.raises(LockedRun, match=f"another process is writing {path}"):
                RunFolder.open(path, write=True)
            assert len(RunFolder.open(path).levels()) == 3
        RunFolder.open(path, write=True).close()

    @pytest.mark.skipif(os.name == "nt", reason="locks by other means")
    @pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
    def test_without_locks_a_run_is_read_and_not_written(self, path, monkeypatch, code):
        """No file that marks the folder as taken stands in for a lock: a killed process would leave it behind."""
        import fcntl

        def refuse(*args):
            raise OSError(code, os.strerror(code))

        before = contents(path)
        monkeypatch.setattr(fcntl, "flock", refuse)
        with pytest.raises(OSError, match=rf"cannot write {path}/run\.lock: {os.strerror(code)}") as caught:
            RunFolder.open(path, write=True)
        assert caught.value.errno == code
        assert len(RunFolder.open(path).levels()) == 3
        assert contents(path) == before

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs")
    @pytest.mark.parametrize("kind", ["a link", "a link to nothing", "a FIFO", "a folder"])
    def test_what_is_no_file_is_no_lock(self, path, kind, tmp_path):
        other, place = tmp_path / "other", path / "run.lock"
        place.unlink(missing_ok=True)
        if kind == "a FIFO":
            os.mkfifo(place)
        elif kind == "a folder":
            place.mkdir()
        else:
            place.symlink_to(other)
        if kind == "a link":
            other.write_text("precious")
        with pytest.raises(OSError, match=rf"cannot write {place}: it is not a regular file.*take another folder"):
            RunFolder.open(path, write=True)
        assert other.read_text() == "precious" if kind == "a link" else not other.exists()
        assert len(RunFolder.open(path).levels()) == 3

    def test_new_runs_are_locked_too(self, tmp_path):
        with RunFolder.create(tmp_path / "r", run()), pytest.raises((LockedRun, FileExistsError)):
            RunFolder.create(tmp_path / "r", run())

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    def test_a_killed_writer_lets_go_though_its_workers_live_on(self, path):
        script = """
import os, sys, time
from pathlib import Path
from sparsight.records.folder import RunFolder
folder = RunFolder.open(Path(sys.argv[1]), write=True)
worker = os.fork()
if worker == 0:
    try:
        folder.keep_progress({})
    except RuntimeError as error:
        print("worker", str(error).replace("\\n", " "), flush=True)
    time.sleep(60)
    os._exit(0)
print("pid", worker, flush=True)
time.sleep(60)
"""
        with subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", script, str(path)], stdout=subprocess.PIPE, text=True
        ) as writer:
            lines = dict(writer.stdout.readline().split(maxsplit=1) for _ in range(2))
            try:
                assert "open the folder with write=True" in lines["worker"]
                with pytest.raises(LockedRun):
                    RunFolder.open(path, write=True)
                writer.kill()
                writer.wait()
                os.kill(int(lines["pid"]), 0)  # the worker is alive
                RunFolder.open(path, write=True).close()
            finally:
                writer.kill()
                os.kill(int(lines["pid"]), signal.SIGKILL)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KiB, in a mount namespace of its own."""
    (tmp_path / "disk").mkdir()
    command = f"mount -t tmpfs -o size=64k none {tmp_path}/disk && echo ready && exec sleep 60"
    try:
        holder = subprocess.Popen(
            ["unshare", "-rm", "sh", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    except OSError:
        pytest.skip("needs unshare")
    with holder:
        disk = Path(f"/proc/{holder.pid}/root{tmp_path}/disk")
        if holder.stdout.readline() != b"ready\n" or not os.access(disk, os.W_OK):
            holder.kill()
            pytest.skip("may not mount a file system")
        yield disk
        holder.kill()


def test_a_full_disk(small_disk):
    path = small_disk / "run"
    with RunFolder.create(path, run()) as folder:
        add(folder, 0)
        folder.keep_progress(state_of(1, 1))
        before = contents(path)
        with pytest.raises(
            OSError, match=r"cannot write .*state\.safetensors: No space left.*intact.*resume"
        ) as caught:
            folder.keep_progress({**state_of(1, 2), "big": torch.zeros(50_000)})
        assert caught.value.errno == errno.ENOSPC
        assert contents(path) == before
        (small_disk / "filler").write_bytes(b"x" * (os.statvfs(small_disk).f_bavail * 4096))
        with pytest.raises(OSError, match="No space left"):
            add(folder, 1)
        assert [r.level for r in folder.levels()] == [0]
    (small_disk / "filler").unlink()
    with RunFolder.open(path, write=True) as folder:
        assert folder.progress()["epoch"] == 1
        add(folder, 1)
        assert [r.level for r in folder.levels()] == [0, 1]


def test_nothing_is_pickled(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("pickle")

    for owner, name in ((pickle, "dumps"), (pickle, "loads"), (pickle, "dump"), (pickle, "load")):
        monkeypatch.setattr(owner, name, refuse)
    monkeypatch.setattr(torch, "save", refuse)
    monkeypatch.setattr(torch, "load", refuse)
    go_on(tmp_path / "r", run())
    for module in (files, pack, store, new_folder, identity):
        tree = ast.walk(ast.parse(inspect.getsource(module)))
        names = {alias.name for node in tree if isinstance(node, (ast.Import, ast.ImportFrom)) for alias in node.names}
        assert not names & {"pickle", "marshal", "shelve", "dill", "joblib"}
