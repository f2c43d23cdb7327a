"""Studies on Ray: the rows of one machine, folders without locks refused, and who starts a cluster is told where."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sparsight.cli.entry import main
from sparsight.integrations import ray as tasks
from sparsight.integrations.ray import RayEngine, UnlockedFolder, check_locks, look, run_study_on_ray, slurm_command
from sparsight.records.folder import RunFolder
from sparsight.records.new_folder import take
from sparsight.runs.study import Shared, Trial, rows, run_study

FILE = """\
model: linear
data: digits
seeds: 1
arguments: {control: false, epochs: 1}
densities: [0.5]
methods:
  - {recipe: lottery, arguments: {levels: 1}}
  - {recipe: oneshot, arguments: {levels: 1}}
"""


# -- locks -------------------------------------------------------------------------------------------------------

LOOK = """
import sys
from pathlib import Path
from sparsight.integrations.ray import look
print(look(Path(sys.argv[1]), sys.argv[2]))
"""


def another_process(folder: Path, word: str) -> dict:
    done = subprocess.run([sys.executable, "-c", LOOK, folder, word], check=True, capture_output=True, text=True)
    return {"node b": done.stdout.strip()}


def test_a_folder_with_locks_keeps_another_process_out(tmp_path):
    check_locks(tmp_path, another_process)
    assert not list(tmp_path.iterdir()), "the probe leaves nothing"


def test_a_lock_that_two_processes_can_take_is_noticed(tmp_path):
    """As on a file system whose locks are those of each machine alone: the file that is locked is another one."""

    def elsewhere(folder: Path, word: str) -> dict:
        other = tmp_path / "other"
        other.mkdir()
        (other / "word").write_text(word)
        return another_process(other, word)

    with pytest.raises(UnlockedFolder, match="no working locks as node b sees it: two processes can"):
        check_locks(tmp_path / "study", elsewhere)


def test_a_node_that_does_not_see_the_folder_is_noticed(tmp_path):
    def blind(folder: Path, word: str) -> dict:
        return another_process(tmp_path / "nowhere", word)

    with pytest.raises(UnlockedFolder, match="node b does not see .*study: every node must reach"):
        check_locks(tmp_path / "study", blind)
    (tmp_path / "word").write_text("another")
    assert look(tmp_path, "this") == "missing", "another folder of that name"


def test_a_file_system_without_locks_is_refused(tmp_path, monkeypatch):
    def none(folder: Path):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("sparsight.integrations.ray.take", none)
    with pytest.raises(UnlockedFolder, match="file system without locks .*No locks available.*put the study on"):
        check_locks(tmp_path, another_process)
    (tmp_path / "word").write_text("w")
    assert look(tmp_path, "w") == "unlockable"


# -- trials ------------------------------------------------------------------------------------------------------


class Fake:
    """A process that has run its trial."""

    started: list[list[str]] = []  # noqa: RUF012

    def __init__(self, words, **about):
        Fake.started.append([*words])

    def wait(self):
        return 0


def test_an_attempt_waits_for_the_process_of_the_one_before(tmp_path, monkeypatch):
    trial = Trial("lottery")
    folder = tmp_path / "trials" / trial.key
    folder.mkdir(parents=True)
    (tmp_path / "logs").mkdir()
    Fake.started = []
    monkeypatch.setattr("sparsight.runs.study.local.subprocess.Popen", Fake)
    held, order = take(folder), []

    def release() -> None:
        time.sleep(0.5)
        order.append("released" if not Fake.started else "too late")
        held.release()

    thread = threading.Thread(target=release)
    thread.start()
    assert tasks.run_trial(trial, tmp_path, Shared(), 1, {"cwd": str(tmp_path)}) == ("finished", "")
    thread.join()
    assert order == ["released"]
    assert len(Fake.started) == 1


def test_a_trial_that_is_finished_is_not_begun_again(tmp_path, monkeypatch):
    from stored import filled

    trial = Trial("lottery")
    run = filled(tmp_path / "trials" / trial.key, finished=True, keep="chosen")
    (run / "report.html").touch()
    monkeypatch.setattr(tasks, "start", None)
    assert tasks.run_trial(trial, tmp_path, Shared(), 1, {"cwd": str(tmp_path)}) == ("finished", "")
    assert [e.status for e in run_study_on_ray([trial], tmp_path, RayEngine(), Shared())] == ["skipped"], "without Ray"


# -- the command ---------------------------------------------------------------------------------------------------


def test_the_lines_for_slurm(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.yaml").write_text(FILE)
    words = ["study", "s.yaml", "--engine", "ray", "--print-slurm", "--out", "o", "--threads", "4"]
    assert main(words) == 0
    told = capsys.readouterr().out
    own = f"--out={tmp_path / 'o'} --device=auto --precision=no --keep=chosen --threads=4"
    assert f"  sparsight study {tmp_path / 's.yaml'} {own} --engine ray --address auto\n" in told
    assert "ray symmetric-run --address" in told
    assert "RAY_AUTH_MODE=token" in told
    assert not (tmp_path / "o").exists()
    assert "'a b'" in slurm_command(["sparsight", "study", "a b"])


@pytest.mark.parametrize(("words", "said"), [(["--address", "a:1"], "--address"), (["--print-slurm"], "--print-slurm")])
def test_what_only_ray_takes(tmp_path, capsys, words, said):
    (tmp_path / "s.yaml").write_text(FILE)
    assert main(["study", str(tmp_path / "s.yaml"), *words]) == 2
    assert f"{said} needs --engine ray" in capsys.readouterr().err


def test_without_ray(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.yaml").write_text(FILE)
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["study", "s.yaml", "--engine", "ray", "--address", "auto"]) == 2
    assert "pip install sparsight[ray]" in capsys.readouterr().err


def test_a_cluster_of_ones_own_gives_the_rows_of_one_machine(tmp_path):
    """A cluster is started, with a token, and ends with the study."""
    pytest.importorskip("ray")
    (tmp_path / "s.yaml").write_text(FILE)
    words = [sys.executable, "-m", "sparsight", "study", str(tmp_path / "s.yaml"), "--out", str(tmp_path / "ray")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*words, "--engine=ray", "--device=cpu"], env=environment, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "sparsight: started Ray on this machine; it lets in who has its token, and listens on" in done.stderr
    assert "gcs_server" in done.stderr
    assert done.stdout.count(": finished") == 2

    from sparsight.cli.study_trials import planned

    trials = [plan.trial for plan in planned(tmp_path / "s.yaml")]
    run_study(trials, tmp_path / "local", device="cpu", threads=1, workers=2)
    found, expected = (
        [{n: v for n, v in row.items() if n != "seconds"} for row in rows(tmp_path / name)] for name in ("ray", "local")
    )
    assert found == expected
    assert len(found) == 4
    with RunFolder.open(tmp_path / "ray" / "trials" / trials[0].key) as run:
        assert run.record.environment["threads"] == 1
