from __future__ import annotations

import ast
import dataclasses
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from stored import add, content, filled, level, network, plain, run_record, state
from torch import nn

from sparsight import files, pack
from sparsight.files import DamagedFile, tensors_digest
from sparsight.identity import run_id
from sparsight.record import LevelTimes, dumps, to_json
from sparsight.store import RunFolder, next_folder


@pytest.fixture(scope="module")
def running(tmp_path_factory) -> Path:
    return filled(tmp_path_factory.mktemp("running") / "run")


@pytest.fixture
def run(running, tmp_path) -> Path:
    """A copy of a run that is not finished, to be damaged."""
    return Path(shutil.copytree(running, tmp_path / "run"))


class TestFolder:
    def test_what_was_stored_is_read_again(self, running):
        with RunFolder.open(running) as folder:
            assert folder.record.recipe == "test"
            assert folder.record.chosen.why == "it is the best"
            assert [(r.role, r.level) for r in folder.levels()] == [
                ("level", 0),
                ("level", 1),
                ("level", 2),
                ("control", 3),
            ]
            for number, record in zip((0, 1, 2, -1), folder.levels(), strict=True):
                assert dataclasses.replace(record, files={}) == level(number)
                assert plain((folder.weights(record), folder.masks(record))) == plain(network(number))
                stored = f"levels/{'control' if number < 0 else f'{number:03d}'}/model.safetensors"
                assert record.files[stored] == tensors_digest(network(number)[0])
            assert [t.train for t in folder.times()] == [1.5] * 4
            assert plain(folder.load_state()) == plain(state(5))
            assert isinstance(folder.load_state()["optimizer"]["lr"], tuple)
            assert plain(folder.rewind()) == plain(network(9)[0])
            assert plain(folder.chosen()) == plain(network(1))
            assert [e.test_accuracy for e in folder.evaluation().entries] == [0.9] * 4

    def test_a_new_run_has_nothing(self, tmp_path):
        with RunFolder.create(tmp_path / "a" / "b", run_record()) as folder:
            assert (folder.levels(), folder.times(), folder.rewind(), folder.load_state()) == ((), (), None, None)
            assert folder.evaluation() is None
            with pytest.raises(ValueError, match="no level of .* has been chosen"):
                folder.chosen()

    def test_the_network_handed_over_loads_into_the_plain_model(self, tmp_path):
        net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4, bias=False)).bfloat16()
        net[2].weight = net[0].weight
        weights = net.state_dict()
        masks = {"0.weight": torch.ones(4, 4, dtype=torch.bool)}
        record = dataclasses.replace(level(0), id=__import__("sparsight").identity.content_id(weights, masks))
        with RunFolder.create(tmp_path / "r", run_record()) as folder:
            record = folder.add_level(record, LevelTimes(0, "level"), weights, masks)
            folder.save_chosen(record, "the only one")
        other = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4, bias=False)).bfloat16()
        other[2].weight = other[0].weight
        other.load_state_dict(load_file(tmp_path / "r" / "model.safetensors"), strict=True)
        assert tensors_digest(other.state_dict()) == tensors_digest(weights)

    def test_a_level_is_added_once_and_under_its_own_id(self, run):
        with RunFolder.open(run, write=True) as folder:
            with pytest.raises(ValueError, match="has level 1 already"):
                add(folder, 1)
            wrong = dataclasses.replace(level(3), id="0" * 64)
            with pytest.raises(ValueError, match="level 3 has the id '0000.*but its content has"):
                folder.add_level(wrong, LevelTimes(3, "level"), *network(3))
            assert plain(folder.load_state()) == plain(state(5))
            add(folder, 3)
            assert folder.load_state() is None

    def test_state_of_a_level_that_has_ended_is_not_taken_up(self, run):
        stale = (run / "state.safetensors").read_bytes()
        with RunFolder.open(run, write=True) as folder:
            add(folder, 3)
        (run / "state.safetensors").write_bytes(stale)  # as a kill before the last step of `add_level` leaves it
        with RunFolder.open(run) as folder:
            assert folder.load_state() is None

    def test_a_reader_cannot_write(self, run):
        before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
        with RunFolder.open(run) as folder:
            for write in (
                lambda: folder.save_state({}),
                lambda: add(folder, 3),
                lambda: folder.update(status="failed"),
                lambda: folder.drop_levels(0),
            ):
                with pytest.raises(RuntimeError, match=f"in {run}: it is not open for writing"):
                    write()
        assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before

    def test_updates_cannot_make_another_run_of_it(self, run):
        with RunFolder.open(run, write=True) as folder:
            assert folder.update(status="interrupted", resumed=2).resumed == 2
            with pytest.raises(ValueError, match=r"another run of .* by changing \['seed'\]"):
                folder.update(seed=4)
        with RunFolder.open(run) as folder:
            assert (folder.record.status, folder.record.seed) == ("interrupted", 3)

    def test_levels_are_parsed_once_however_often_state_is_saved(self, run, monkeypatch):
        seen = []
        read = files.read_lines
        monkeypatch.setattr(files, "read_lines", lambda path, remedy: (seen.append(path.name), read(path, remedy))[1])
        with RunFolder.open(run, write=True) as folder:
            for _ in range(5):
                folder.save_state(state(5))
            add(folder, 3)
            for _ in range(5):
                folder.save_state(state(6))
            add(folder, 4)
        assert seen.count("levels.jsonl") == 1
        assert seen.count("times.jsonl") == 2

    def test_dropping_levels(self, run):
        with RunFolder.open(run, write=True) as folder:
            with pytest.raises(ValueError, match="cannot keep 5 of 4 levels"):
                folder.drop_levels(5)
            folder.drop_levels(2)
        with RunFolder.open(run, write=True) as folder:
            assert [r.level for r in folder.levels()] == [0, 1]
            assert [t.level for t in folder.times()] == [0, 1]
            assert (folder.record.status, folder.record.chosen) == ("interrupted", None)
            assert (folder.load_state(), folder.evaluation()) == (None, None)
            assert folder.rewind() is not None
            assert sorted(p.name for p in (run / "levels").iterdir()) == ["000", "001"]
            assert plain(folder.weights(add(folder, 2))) == plain(network(2)[0])

    def test_levels_whose_weights_are_gone_cannot_be_gone_on_from(self, tmp_path):
        with RunFolder.open(filled(tmp_path / "r", finished=True, keep="last"), write=True) as folder:
            folder.discard()
            with pytest.raises(ValueError, match="cannot keep 3 levels of .* weights of level 0.* are not there"):
                folder.drop_levels(3)
            assert folder.record.status == "finished"
            folder.drop_levels(0)
            assert folder.levels() == ()

    def test_another_choice(self, run):
        with RunFolder.open(run, write=True) as folder:
            folder.save_chosen(folder.levels()[2], "second thoughts")
            assert plain(folder.chosen()) == plain(network(2))


class TestKeep:
    @pytest.mark.parametrize("keep", ["all", "chosen", "last"])
    @pytest.mark.parametrize("loss", [0.5, math.nan])  # a record that holds a NaN is not equal to itself
    def test_what_stays(self, tmp_path, keep, loss):
        path = filled(tmp_path / "r", finished=True, keep=keep, loss=loss)
        for _ in range(2):
            with RunFolder.open(path, write=True) as folder:
                folder.discard()
        stored = sorted(p.parent.name for p in path.glob("levels/*/model.safetensors"))
        assert stored == {"all": ["000", "001", "002", "control"], "chosen": [], "last": ["002"]}[keep]
        assert (path / "rewind.safetensors").exists() == (keep == "all")
        with RunFolder.open(path) as folder:
            for number, record in zip((0, 1, 2, -1), folder.levels(), strict=True):
                assert plain(folder.masks(record)) == plain(network(number)[1])
                if keep == "all" or number == 1 or (keep, number) == ("last", 2):
                    assert plain(folder.weights(record)) == plain(network(number)[0])
                else:
                    with pytest.raises(FileNotFoundError, match=f"{record.role} {record.level} were not kept.*{keep}"):
                        folder.weights(record)
            assert plain(folder.chosen()) == plain(network(1))
            assert (folder.rewind() is None) == (keep != "all")

    def test_not_before_the_end_and_not_while_the_chosen_network_is_damaged(self, tmp_path):
        path = filled(tmp_path / "r", keep="chosen")
        with RunFolder.open(path, write=True) as folder:
            with pytest.raises(ValueError, match="the run is running"):
                folder.discard()
            folder.update(status="finished")
            (path / "model.safetensors").write_bytes(b"")
            with pytest.raises(DamagedFile, match="copy levels/001/model.safetensors over it"):
                folder.discard()
            assert len(list(path.glob("levels/*/model.safetensors"))) == 4
            shutil.copy(path / "levels/001/model.safetensors", path)  # as it said
            folder.discard()

    def test_weights_that_must_be_there_are_missed(self, tmp_path):
        path = filled(tmp_path / "r", finished=True)
        (path / "levels/002/model.safetensors").unlink()
        with (
            RunFolder.open(path) as folder,
            pytest.raises(DamagedFile, match="no such file.*levels from 2 on by .*drop_levels"),
        ):
            folder.weights(folder.levels()[2])


READERS = {
    "run.json": lambda folder: folder.record,
    "levels.jsonl": lambda folder: folder.levels(),
    "times.jsonl": lambda folder: folder.times(),
    "evaluation.json": lambda folder: folder.evaluation(),
    "state.safetensors": lambda folder: folder.load_state(),
    "rewind.safetensors": lambda folder: folder.rewind(),
    "model.safetensors": lambda folder: folder.chosen(),
    "masks.safetensors": lambda folder: folder.chosen(),
    "levels/001/model.safetensors": lambda folder: folder.weights(folder.levels()[1]),
    "levels/002/masks.safetensors": lambda folder: folder.masks(folder.levels()[2]),
    "levels/control/model.safetensors": lambda folder: folder.weights(folder.levels()[3]),
}


def read(run: Path, name: str):
    with RunFolder.open(run) as folder:
        return plain(READERS[name](folder))


def refused(run: Path, name: str, match: str = "", blamed: str | None = None) -> None:
    """Reading what `name` holds must raise DamagedFile, which names the file and what to do."""
    with pytest.raises(DamagedFile, match=match) as caught:
        read(run, name)
    assert caught.value.path == run / (blamed or name)
    assert str(run / (blamed or name)) in str(caught.value)
    assert len(caught.value.remedy) > 8
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("name", READERS)
class TestDamage:
    def test_truncated_or_flipped(self, run, name):
        data, good = (run / name).read_bytes(), read(run, name)
        step = max(1, len(data) // 40)
        for i in [*range(0, len(data), step), len(data) - 1]:
            (run / name).write_bytes(data[:i])
            refused(run, name)
            (run / name).write_bytes(data[:i] + bytes([data[i] ^ (1 << i % 8)]) + data[i + 1 :])
            try:
                assert read(run, name) == good  # as 1e-05 and 1E-05 are
            except DamagedFile as error:
                assert error.path == run / name  # noqa: PT017
        (run / name).write_bytes(data)
        assert read(run, name) == good

    def test_of_another_run(self, run, tmp_path, name):
        other = filled(tmp_path / "other", seed=4)
        shutil.copy(other / name, run / name)
        if name == "run.json":
            with RunFolder.open(run) as folder, pytest.raises(DamagedFile, match="belongs to another run") as caught:
                folder.levels()
            assert caught.value.path == run / "levels.jsonl"
        else:
            refused(run, name, "it belongs to another run than run.json")

    def test_of_another_kind(self, run, name):
        place = run / name
        kin = {".json": "evaluation.json", ".jsonl": "levels.jsonl", ".safetensors": "rewind.safetensors"}
        wrong = run / kin[place.suffix]
        if wrong == place:
            wrong = run / {"evaluation.json": "run.json", "levels.jsonl": "times.jsonl"}.get(name, "state.safetensors")
        shutil.copy(wrong, place)
        refused(run, name, "it is another file: got '|schema")

    def test_gone(self, run, name):
        (run / name).unlink()
        if name == "run.json":
            with pytest.raises(FileNotFoundError, match=f"no run in {run}"):
                RunFolder.open(run)
        elif name in ("times.jsonl", "evaluation.json", "state.safetensors"):
            assert not read(run, name)  # as their remedies say
        else:
            refused(run, name, "no such file")

    def test_a_folder_in_its_place(self, run, name):
        (run / name).unlink()
        (run / name).mkdir()
        refused(run, name)


class TestSwapped:
    @pytest.mark.parametrize("name", ["model.safetensors", "masks.safetensors"])
    def test_level_1_in_the_place_of_level_2(self, run, name):
        shutil.copy(run / "levels/001" / name, run / "levels/002" / name)
        with RunFolder.open(run) as folder:
            record = folder.levels()[2]
            with pytest.raises(DamagedFile, match="it is of another level") as caught:
                folder.weights(record) if name.startswith("model") else folder.masks(record)
        assert caught.value.path == run / "levels/002" / name

    def test_another_level_at_the_top(self, run):
        for name in ("model.safetensors", "masks.safetensors"):
            shutil.copy(run / "levels/002" / name, run / name)
        refused(run, "model.safetensors", "another level.*copy levels/001/model.safetensors over it")

    def test_another_rewind_point_of_the_same_run(self, run):
        with RunFolder.open(run, write=True) as folder:
            folder.save_rewind(network(8)[0])
        refused(run, "rewind.safetensors", "another checksum than levels.jsonl says")

    def test_right_id_but_other_tensors(self, run):
        about = {"kind": "model", "run": run_id(run_record()), "id": level(2).id}
        files.write_tensors(run / "levels/002/model.safetensors", network(1)[0], about)
        with RunFolder.open(run) as folder, pytest.raises(DamagedFile, match="another checksum than levels.jsonl"):
            folder.weights(folder.levels()[2])


class TestCrafted:
    """Files with good checksums that no sparsight of this version wrote."""

    def about(self, kind: str) -> dict:
        return {"kind": kind, "run": run_id(run_record())}

    @pytest.mark.parametrize(
        ("line", "match"),
        [
            (dumps({**to_json(level(0)), "schema": 2}), "got 2, allowed is 1"),
            (dumps({**to_json(level(0)), "colour": 1}), "colour"),
            (dumps({**to_json(level(0)), "epochs": "many"}), "levels.jsonl.epochs: got 'many'"),
            (dumps({**to_json(level(0)), "epochs": 10**400}), "epochs"),
            (dumps({**to_json(level(0)), "role": ["level"]}), "role"),
            (dumps(to_json(level(0))).replace("1.0", "NaN", 1), "NaN"),
            ("[" * 100_000, "JSON"),
            ('{"operation":' + "[" * 900 + "]" * 900 + "}", "levels.jsonl"),
            ("[]", "allowed is an object"),
            ("", "JSON"),
        ],
    )
    def test_lines(self, run, line, match):
        files.write_lines(run / "levels.jsonl", [line], self.about("levels"))
        refused(run, "levels.jsonl", match)

    @pytest.mark.parametrize(
        "fields",
        [
            {},
            {"levels": 4},
            {"levels": 4, "skeleton": {"tensor": "7"}},
            {"levels": 4, "skeleton": {"tensor": "0", "stride": [2**50, 2**45]}},
            {"levels": 4, "skeleton": {"dict": [[["a"], 1]]}},
            {"levels": 4, "skeleton": {"float": "much"}},
        ],
    )
    def test_state(self, run, fields):
        files.write_tensors(
            run / "state.safetensors", {"0": torch.ones(2, 3)}, {**self.about("state"), "levels": 4} | fields
        )
        refused(run, "state.safetensors")

    @pytest.mark.parametrize(
        "shapes",
        [None, 3, {"a.weight": "ab"}, {"a.weight": [2**60, 2**60]}, {"a.weight": [-3, -5]}, {"a.weight": [3.0, 5]}],
    )
    def test_masks(self, run, shapes):
        packed, _ = pack.pack_masks(network(2)[1])
        about = {**self.about("masks"), "id": level(2).id}
        files.write_tensors(run / "levels/002/masks.safetensors", packed, {**about, "shapes": shapes})
        with RunFolder.open(run) as folder, pytest.raises(DamagedFile) as caught:
            folder.masks(dataclasses.replace(folder.levels()[2], files={}))
        assert caught.value.path == run / "levels/002/masks.safetensors"

    @pytest.mark.parametrize("record", [None, [], {"entries": 3}, {"entries": [], "schema": 9}])
    def test_evaluation(self, run, record):
        files.write_json(run / "evaluation.json", {**self.about("evaluation"), "record": record})
        refused(run, "evaluation.json")

    def test_run(self, run):
        files.write_json(run / "run.json", {"kind": "run", "record": {**to_json(run_record()), "keep": "some"}})
        refused(run, "run.json", "run.json.keep: got 'some', allowed is one of")
        (run / "run.json").write_text(json.dumps({"kind": "run", "schema": 1}) + "\n")
        refused(run, "run.json", "checksum")


class TestPlaces:
    def test_a_folder_that_holds_anything_is_not_taken(self, tmp_path):
        (tmp_path / "diary.txt").write_text("x")
        with pytest.raises(FileExistsError, match=f"cannot start a run in {tmp_path}: it holds diary.txt"):
            RunFolder.create(tmp_path, run_record())
        assert [p.name for p in tmp_path.iterdir()] == ["diary.txt"]

    @pytest.mark.parametrize("inside", ["", "deep/down"])
    def test_a_file_in_the_place_of_a_folder(self, tmp_path, inside):
        (tmp_path / "f").write_text("x")
        with pytest.raises(OSError, match=f"cannot write {tmp_path / 'f'}.*move away what is in its place"):
            RunFolder.create(tmp_path / "f" / inside, run_record())
        assert (tmp_path / "f").read_text() == "x"

    def test_no_run_there(self, tmp_path):
        for path in (tmp_path, tmp_path / "nothing"):
            with pytest.raises(FileNotFoundError, match=f"there is no run in {path}"):
                RunFolder.open(path, write=True)
        assert not list(tmp_path.iterdir())

    def test_next_folder(self, tmp_path):
        root = tmp_path / "runs"
        assert next_folder(root, "sap").name == "sap-001"
        (root / "sap-007").mkdir()
        (root / "sap-old").mkdir()
        (root / "sap-more-100").mkdir()
        assert next_folder(root, "sap").name == "sap-008"
        for bad in ("", "a/b", "/", "a/"):
            with pytest.raises(ValueError, match="plain file name"):
                next_folder(root, bad)

    def test_next_folder_when_another_process_is_faster(self, tmp_path, monkeypatch):
        make, beaten = Path.mkdir, []

        def mkdir(self, *args, **kwargs):
            if not beaten:
                beaten.append(self.name)
                make(self)
            make(self, *args, **kwargs)

        monkeypatch.setattr(Path, "mkdir", mkdir)
        assert next_folder(tmp_path, "sap").name == "sap-002"
        assert beaten == ["sap-001"]


def test_no_pickle():
    """Nothing that runs code from a file."""
    source = Path(files.__file__).parent
    for name in ("files", "pack", "store", "record", "identity", "lock", "execute"):
        for node in ast.walk(ast.parse((source / f"{name}.py").read_text())):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {"pickle", "shelve", "marshal", "joblib", "dill"} & {m.split(".")[0] for m in modules}
            if isinstance(node, ast.Attribute):
                assert ast.unparse(node) not in ("torch.load", "torch.save", "np.load", "numpy.load")
            if isinstance(node, ast.Name):
                assert node.id not in ("eval", "exec", "compile")
