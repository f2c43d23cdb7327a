"""Damage is noticed by whoever reads, and `verify` finds all of it; nothing that was made of records outlives them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from stored import add, filled, state

from sparsight import RunFolder
from sparsight.analysis.trajectory import trajectory
from sparsight.cli.entry import main
from sparsight.compare.verdict import report
from sparsight.records import DamagedFile, files, trials, verify, verify_run
from sparsight.records.verify import check_whole, whole
from sparsight.report import page as report_page
from sparsight.runs.study import Trial, read_study, rows, run_study, verify_study

FILES = [
    "run.json", "levels.jsonl", "times.jsonl", "evaluation.json", "model.safetensors", "masks.safetensors",
    "rewind.safetensors", "levels/000/model.safetensors", "levels/001/masks.safetensors",
    "levels/control/model.safetensors",
]  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    at = tmp_path_factory.mktemp("runs")
    made = {"finished": filled(at / "finished", finished=True), "running": filled(at / "running")}
    made["chosen"] = filled(at / "chosen", finished=True, keep="chosen")
    with RunFolder.open(made["chosen"], write=True) as folder:
        folder.discard()
    return made


@pytest.fixture(params=["finished", "running", "chosen"])
def run(request, runs, tmp_path) -> Path:
    return Path(shutil.copytree(runs[request.param], tmp_path / "run"))


def flip(path: Path) -> None:
    """The last byte of tensors, or a digit of a record, is another."""
    data = bytearray(path.read_bytes())
    at = -1 if path.suffix == ".safetensors" else data.index(b'"')
    data[at] ^= 1
    path.write_bytes(bytes(data))


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def lose(path: Path) -> None:
    path.unlink()


def special(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


# -- verify ------------------------------------------------------------------------------------------------------


def test_a_whole_run_has_no_damage(run):
    assert verify_run(run) == verify_run(str(run)) == ()
    with whole(run) as folder:
        assert folder.levels()


def test_the_runs_of_another_version_are_whole():
    for name in ("run-0.1", "run-0.1-unfinished"):
        assert verify_run(Path(__file__).parents[1] / "data" / name) == ()


@pytest.mark.parametrize("harm", [flip, cut, empty, special])
@pytest.mark.parametrize("name", [*FILES, "state.safetensors"])
def test_every_file_is_checked(run, name, harm):
    if not (run / name).exists():
        pytest.skip("not of this run")
    harm(run / name)
    (found,) = verify_run(run)
    assert isinstance(found, DamagedFile)
    assert found.path == run / name


@pytest.mark.parametrize(
    "name", ["levels.jsonl", "model.safetensors", "masks.safetensors", "levels/002/masks.safetensors"]
)
def test_a_file_that_is_lost_is_damage(run, name):
    lose(run / name)
    (found,) = verify_run(run)
    assert found.path == run / name
    assert "the file is missing" in str(found)


def test_all_damage_is_told_at_once(run, capsys):
    harmed = ["levels/000/masks.safetensors", "levels/002/masks.safetensors", "evaluation.json"]
    for name in harmed:
        cut(run / name)
    assert {found.path for found in verify_run(run)} == {run / name for name in harmed}
    assert main(["verify", str(run)]) == 3
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert all("is damaged" in line and "What to do" in line for line in lines)


def test_a_level_of_another_run_or_another_level_is_damage(run, runs, tmp_path):
    other = filled(tmp_path / "other", seed=4)
    (run / "levels/001/masks.safetensors").write_bytes((other / "levels/001/masks.safetensors").read_bytes())
    shutil.copy(run / "levels/000/masks.safetensors", run / "levels/002/masks.safetensors")
    first, second = sorted(verify_run(run), key=str)
    assert "it belongs to another run" in str(first)
    assert "it belongs to another level" in str(second)


def test_the_command_says_that_all_is_well_and_that_there_is_no_run(run, capsys):
    assert main(["verify", str(run)]) == 0
    assert capsys.readouterr().out == f"{run}: every file is intact\n"
    for path in (run / "levels", run / "nothing", run / ("x" * 300)):
        assert main(["verify", str(path)]) == 2
        assert "is not a run folder" in capsys.readouterr().err


# -- whoever reads -------------------------------------------------------------------------------------------------


READERS = {
    "show": lambda run: main(["show", str(run)]),
    "show --json": lambda run: main(["show", str(run), "--json"]),
    "report": lambda run: main(["report", str(run)]),
    "analyze": lambda run: main(["analyze", str(run)]),
}


@pytest.mark.parametrize("harm", [cut, empty, lose, special])
@pytest.mark.parametrize("command", READERS)
def test_commands_notice_what_they_rely_on(run, capsys, command, harm):
    assert READERS[command](run) == 0
    harm(run / "model.safetensors")
    capsys.readouterr()
    assert READERS[command](run) == 3
    said = capsys.readouterr()
    assert f"{run / 'model.safetensors'} is damaged" in said.err
    assert not said.out


def test_a_reader_that_looks_while_a_run_ends_is_not_misled(runs, tmp_path, monkeypatch):
    """Its files go as the record says that they may: the records are read again before damage is told."""
    path = filled(tmp_path / "run", finished=True, keep="chosen")
    with RunFolder.open(path, write=True) as folder:
        folder.update(status="running")
    with RunFolder.open(path) as old:
        with RunFolder.open(path, write=True) as folder:
            folder.update(status="finished")
            folder.discard()
        assert not (path / "levels/000/model.safetensors").exists()
        check_whole(old)


CHANGING = {
    "replaced": lambda folder: folder.keep_progress(state(6)),
    "gone": lambda folder: folder.clear_progress(),
    "done": lambda folder: add(folder, 3),
}


@pytest.mark.parametrize("change", CHANGING)
@pytest.mark.parametrize("read", ["verify", "show"])
def test_a_file_that_changes_while_it_is_read_is_no_damage(runs, tmp_path, monkeypatch, change, read):
    """Half of it may be the old file and half the new one; it is read again."""
    run, seen = Path(shutil.copytree(runs["running"], tmp_path / "run")), []
    name = "read_tensors" if read == "verify" else "read_facts"
    usual = getattr(verify, name)

    def between(path, remedy):
        if path.name == "state.safetensors":
            seen.append(path)
            if len(seen) < 3:
                with RunFolder.open(run, write=True) as folder:
                    if folder.progress() is not None:
                        CHANGING[change](folder)
                        raise DamagedFile(path, "half of it is another file", remedy)
        return usual(path, remedy)

    monkeypatch.setattr(verify, name, between)
    assert verify_run(run) == () if read == "verify" else whole(run).levels()
    assert seen


def test_damage_beside_a_file_that_changes_all_the_time_is_told(runs, tmp_path, monkeypatch):
    run = Path(shutil.copytree(runs["running"], tmp_path / "run"))
    cut(run / "levels/001/masks.safetensors")
    usual = verify.read_tensors

    def between(path, remedy):
        if path.name == "state.safetensors":
            with RunFolder.open(run, write=True) as folder:
                folder.keep_progress(state(6))
        return usual(path, remedy)

    monkeypatch.setattr(verify, "read_tensors", between)
    assert [found.path.name for found in verify_run(run)] == ["masks.safetensors"]


def test_a_path_of_a_run_is_drawn_from_whole_files_alone(run):
    assert len(trajectory(run).steps) == 3
    cut(run / "levels/000/masks.safetensors")
    with pytest.raises(DamagedFile, match="levels/000/masks"):
        trajectory(run)


def test_resuming_notices_damage_before_it_trains(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["run", "lottery", "--data", "digits", "--model", "linear", "--epochs", "1", "--levels", "2", "--out", "r"]
    assert main(words) == 0
    empty(Path("r/model.safetensors"))
    assert main([*words, "--resume"]) == 3
    assert "r/model.safetensors is damaged" in capsys.readouterr().err
    with RunFolder.open(Path("r"), write=True) as folder:
        folder.drop_levels(2)
    cut(Path("r/levels/000/model.safetensors"))
    assert main([*words, "--resume"]) == 3
    assert "r/levels/000/model.safetensors is damaged" in capsys.readouterr().err


FORGED = {
    "masks of whole numbers": lambda state: state["masks"].update({n: m.int() for n, m in state["masks"].items()}),
    "masks of another shape": lambda state: state["masks"].update({n: m[:1] for n, m in state["masks"].items()}),
    "masks of another weight": lambda state: state["masks"].update({"other": torch.ones(2, dtype=torch.bool)}),
    "weights of another shape": lambda state: state["weights"].update({n: w[:1] for n, w in state["weights"].items()}),
    "fewer weights": lambda state: state["weights"].popitem(),
    "no momentum": lambda state: state["optimizer"]["param_groups"][0].pop("momentum"),
    "no groups": lambda state: state["optimizer"]["param_groups"].clear(),
    "no optimiser": lambda state: state.pop("optimizer"),
    "text for an optimiser": lambda state: state.update(optimizer="SGD"),
    "seconds in words": lambda state: state.update(seconds={"train": "many"}),
    "observations of another kind": lambda state: state.update(observations=[{"epoch": 1.0}]),
    "nothing of what it should hold": lambda state: state.clear(),
}


@pytest.fixture(scope="module")
def inside(tmp_path_factory) -> tuple[Path, list[str]]:
    """A run that was interrupted inside a level, and its command."""
    from sparsight.cli.progress import Watcher

    usual, at = Watcher.__call__, tmp_path_factory.mktemp("inside") / "r"

    def stop(self, event):
        usual(self, event)
        if event.kind == "epoch" and event.level == 1:
            raise KeyboardInterrupt

    words = ["run", "lottery", "--data", "digits", "--model", "linear", "--epochs", "2", "--levels", "1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Watcher, "__call__", stop)
        assert main([*words, "--out", str(at)]) == 130
    return at, words


@pytest.mark.parametrize("what", FORGED)
def test_a_state_that_does_not_fit_its_level_is_damaged(inside, tmp_path, capsys, what):
    source, words = inside
    run = Path(shutil.copytree(source, tmp_path / "run"))
    with RunFolder.open(run, write=True) as folder:
        state = dict(folder.progress())
        FORGED[what](state)
        folder.keep_progress(state)
    assert main([*words, "--out", str(run), "--resume"]) == 3
    said = capsys.readouterr().err
    assert said.startswith(f"sparsight: {run / 'state.safetensors'} is damaged: it does not fit level 1: ")
    assert "delete it; the run then resumes at the start of the level" in said
    assert said.count("\n") == 1
    (run / "state.safetensors").unlink()
    assert main([*words, "--out", str(run), "--resume"]) == 0


@pytest.mark.parametrize("seconds", ["inf", "nan", -1.0])
def test_seconds_that_no_clock_tells_are_damage(run, capsys, seconds):
    lines, fields = files.read_lines(run / "times.jsonl", "")
    first = {**json.loads(lines[0]), "train": seconds}
    files.write_lines(run / "times.jsonl", [json.dumps(first), *lines[1:]], fields)
    for read in READERS.values():
        if read is not READERS["analyze"]:
            assert read(run) == 3
            assert f"{run / 'times.jsonl'} is damaged" in capsys.readouterr().err


# -- nothing derived is stale ----------------------------------------------------------------------------------------


CHANGES = {
    "status": lambda folder: folder.update(status="interrupted"),
    "a level": lambda folder: add(folder, 3),
    "fewer levels": lambda folder: folder.drop_levels(1),
    "another choice": lambda folder: folder.save_chosen(folder.levels()[2], "second thoughts"),
    "evaluation": lambda folder: folder.save_evaluation(folder.evaluation()),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_page_goes_when_the_records_change(runs, tmp_path, change):
    run = Path(shutil.copytree(runs["running"], tmp_path / "run"))
    with RunFolder.open(run, write=True) as folder:
        report(folder)
        folder.keep_progress({"weights": {}})
        assert (run / "report.html").exists()
        CHANGES[change](folder)
    assert not (run / "report.html").exists()


@pytest.mark.parametrize("change", ["status", "a level"])
def test_a_page_that_is_made_while_the_run_goes_on_is_made_again(runs, tmp_path, monkeypatch, capsys, change):
    run, made = Path(shutil.copytree(runs["running"], tmp_path / "run")), []

    def page(*records):
        made.append(text := report_page(*records))
        if len(made) == 1:
            with RunFolder.open(run, write=True) as folder:
                CHANGES[change](folder)
        return text

    monkeypatch.setitem(report.__globals__, "page", page)
    assert main(["report", str(run)]) == 0
    assert len(made) == 2
    assert (run / "report.html").read_text() == made[1] != made[0]


def test_a_report_of_an_unfinished_run_is_not_that_of_the_finished_one(tmp_path, monkeypatch):
    from sparsight.cli.progress import Watcher

    monkeypatch.chdir(tmp_path)
    usual = Watcher.__call__

    def stop(self, event):
        usual(self, event)
        if event.kind == "epoch" and event.level == 1:
            raise KeyboardInterrupt

    words = ["run", "lottery", "--data", "digits", "--model", "linear", "--epochs", "2", "--levels", "2", "--out", "r"]
    with monkeypatch.context() as patch:
        patch.setattr(Watcher, "__call__", stop)
        assert main(words) == 130
    assert main(["report", "r"]) == 0
    before = Path("r/report.html").read_bytes()
    assert main([*words, "--resume"]) == 0
    after = Path("r/report.html").read_bytes()
    assert main(["report", "r"]) == 0
    assert after == Path("r/report.html").read_bytes() != before


# -- studies ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def study(runs, tmp_path) -> Path:
    out = tmp_path / "study"
    run_study([], out)
    listed = [Trial("lottery", seed=seed, label="=1") for seed in (2, 1, 0)]
    trials.remember(listed, out, trials.Shared())
    for trial, name in zip(listed, ("finished", "running"), strict=False):
        shutil.copytree(runs[name], out / "trials" / trial.key)
    return out


def test_a_study_is_verified_with_its_runs(study, capsys):
    listed, shared = read_study(study)
    assert [trial.seed for trial in listed.values()] == [2, 1, 0]
    assert shared == {"device": "auto", "precision": "no", "keep": "chosen"}
    assert verify_study(study) == ()
    assert main(["verify", str(study)]) == 0
    first, second, _ = listed
    harmed = [study / "trials" / first / "levels.jsonl", study / "trials" / second / "levels/001/masks.safetensors"]
    for path in harmed:
        cut(path)
    assert [found.path for found in verify_study(study)] == harmed
    capsys.readouterr()
    assert main(["verify", str(study)]) == 3
    assert len(capsys.readouterr().out.splitlines()) == 2
    with pytest.raises(DamagedFile, match="levels.jsonl"):
        rows(study)


@pytest.mark.parametrize("left", ["levels.jsonl", "masks.safetensors", None])
def test_a_run_of_a_study_that_has_lost_its_record_is_damaged(study, capsys, left):
    """It has begun, or it would have neither levels nor a state."""
    _, second, third = read_study(study)[0]
    lost = study / "trials" / second / "run.json"
    lose(lost)
    if left is not None:
        lose(study / "trials" / second / ("state.safetensors" if left == "levels.jsonl" else "levels.jsonl"))
    assert [found.path for found in verify_study(study)] == [lost]
    assert main(["verify", str(study)]) == 3
    with pytest.raises(DamagedFile, match="there is no such file"):
        rows(study)
    assert (study / "trials" / third).mkdir() is None
    (study / "trials" / third / "run.lock").touch()  # as a kill leaves it that comes first of all
    shutil.rmtree(study / "trials" / second)
    assert verify_study(study) == ()
    assert {row["seed"] for row in rows(study)} == {2}


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]\n", b'{"trials": 3}\n', b'{"trials": {"x": {}}}\n', b"\xff\n",
     b'{"trials": {"lottery-mlp-fashion-mnist-seed0-0000000000": {"recipe": "lottery"}}}\n'],
)  # fmt: skip
def test_a_damaged_list_of_trials_is_a_damaged_file(study, content):
    (study / "study.json").write_bytes(content)
    for read in (read_study, rows, lambda out: run_study([], out)):
        with pytest.raises(DamagedFile) as caught:
            read(study)
        assert caught.value.path == study / "study.json"
    (found,) = verify_study(study)
    assert found.path == study / "study.json"


def test_a_list_of_trials_that_was_changed_is_damaged_and_one_without_checksum_is_read(study):
    text = (study / "study.json").read_text()
    (study / "study.json").write_text(text.replace('"=1"', '"=2"'))
    with pytest.raises(DamagedFile, match="checksum"):
        read_study(study)
    old = {key: value for key, value in json.loads(text).items() if key not in ("schema", "sha256")}
    (study / "study.json").write_text(json.dumps(old) + "\n")
    assert [trial.label for trial in read_study(study)[0].values()] == ["=1"] * 3


def test_there_is_no_study(tmp_path):
    for read in (read_study, rows, verify_study):
        with pytest.raises(FileNotFoundError, match="there is no study"):
            read(tmp_path)
