"""Whatever ends a command from outside, and whenever it comes: one line, a run that can be resumed, and no orphans."""

from __future__ import annotations

import ctypes
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import threading
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sparsight import RunFolder, execute
from sparsight.cli import signals
from sparsight.cli.entry import main
from sparsight.cli.study_trials import planned
from sparsight.numerics.kernels.jit import jit, uninterrupted
from sparsight.recipes import lottery
from sparsight.records import verify_run

ROOT = Path(__file__).parents[2]

OWN = '''
import os, time
import torch
from sparsight.types import Data, Split

split = Split(torch.randn(40, 6, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 2)

class Loader:
    """Two batches; in the third pass, unless there is a file "go", it says that it is alive and waits for ever."""

    passes = 0

    def __len__(self):
        return 2

    def __iter__(self):
        Loader.passes += 1
        if Loader.passes == 3 and not os.path.exists("go"):
            self.alive = open("alive", "w")
            self.alive.write(f"{os.getpid()}\\n")
            self.alive.flush()
            time.sleep(3600)
        yield from ((split.x[i : i + 20], split.y[i : i + 20]) for i in (0, 20))

def build():
    return torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.Linear(4, 2))

def data():
    return Data(name="mine", train=Loader(), validation=split)
'''


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN)
    os.mkfifo("alive")
    trial = {"recipe": "lottery", "arguments": {"epochs": 3, "levels": 1, "control": False}, "model": "own:build"}
    (tmp_path / "f.json").write_text(json.dumps([{**trial, "data": "own:data"}]))
    return tmp_path


@contextmanager
def waiting(alive: Path) -> Iterator[int]:
    """The process that says it is alive; after the block it has ended, and all that holds its end of the pipe."""
    with open(alive) as pipe:
        number = int(pipe.readline())
        late = threading.Timer(120, os.kill, [number, signal.SIGKILL])  # a test that fails ends
        late.start()
        yield number
        assert pipe.read() == ""
        late.cancel()


STUDY = [sys.executable, "-m", "sparsight", "study", "f.json", "--out", "out", "--device", "cpu"]


# -- a study leaves no orphans -----------------------------------------------------------------------------------


def test_trials_end_with_a_study_that_is_killed_and_the_same_command_goes_on(here):
    study = subprocess.Popen(STUDY, env=environment(), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with waiting(here / "alive"):
        study.kill()
    study.communicate()
    (trial,) = [plan.trial for plan in planned(here / "f.json")]
    with RunFolder.open(here / "out" / "trials" / trial.key, write=True) as folder:  # nobody holds its lock
        assert (folder.record.status, len(folder.levels())) == ("interrupted", 0)
        assert folder.progress() is not None
    (here / "go").touch()
    done = subprocess.run(STUDY, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with RunFolder.open(here / "out" / "trials" / trial.key) as folder:
        assert (folder.record.status, folder.record.resumed, len(folder.levels())) == ("finished", 1, 2)


def test_a_closed_terminal_ends_the_study_and_its_trials(here):
    master, slave = pty.openpty()

    def with_terminal() -> None:
        os.setsid()
        import fcntl

        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study = subprocess.Popen(
            STUDY, env=environment(), stdin=slave, stdout=slave, stderr=slave, preexec_fn=with_terminal
        )
    os.close(slave)
    with waiting(here / "alive"):
        os.close(master)
    assert study.wait() == 130
    (trial,) = [plan.trial for plan in planned(here / "f.json")]
    with RunFolder.open(here / "out" / "trials" / trial.key, write=True) as folder:
        assert folder.record.status == "interrupted"


STUBBORN = """
import os, signal, subprocess, sys
from sparsight.cli import signals
signals.GRACE = 0.1
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.environ[signals.TRIAL] = "1"
signals.end_with_the_study()
assert sys.stdin.read() == ""  # what the trial runs does not see the pipe
code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('there', flush=True); signal.pause()"
subprocess.Popen([sys.executable, "-c", code]).wait()
"""


def test_a_trial_that_will_not_end_is_killed_with_all_that_it_has_started():
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    stubborn = subprocess.Popen([sys.executable, "-c", STUBBORN], env=environment(), start_new_session=True, **pipes)
    assert stubborn.stdout.readline() == b"there\n"
    stubborn.stdin.close()
    assert stubborn.stdout.read() == b""  # both have let it go
    assert stubborn.wait() == -9
    stubborn.stdout.close()


def test_a_command_that_is_no_trial_keeps_its_standard_input(monkeypatch):
    monkeypatch.delenv(signals.TRIAL, raising=False)
    before = os.fstat(0)
    signals.end_with_the_study()
    assert os.path.samestat(os.fstat(0), before)


# -- a run ---------------------------------------------------------------------------------------------------------


RUN = ["run", "lottery", "--epochs", "3", "--levels", "1", "--no-control", "--model", "own:build", "--data", "own:data"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=["INT", "TERM", "HUP"])
def test_a_run_says_one_line_and_how_to_go_on(here, number):
    words = [sys.executable, "-m", "sparsight", *RUN, "--out", "r"]
    run = subprocess.Popen(words, env=environment(), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with waiting(here / "alive"):
        run.send_signal(number)
    _, err = run.communicate()
    assert run.returncode == 130
    (line,) = [line for line in err.splitlines() if line and "Note" not in line and "note" not in line]
    assert line.startswith("sparsight: interrupted; resume with: sparsight run lottery --resume --out r")
    with RunFolder.open(Path("r")) as folder:
        assert folder.record.status == "interrupted"


@pytest.mark.parametrize("keep", ["chosen", "last"])
def test_a_run_that_is_stopped_while_it_tidies_up_is_finished(tmp_path, monkeypatch, keep):
    """Weights may be gone by then that an unfinished run would need."""
    out = tmp_path / "r"
    recipe = lottery(epochs=1, levels=2, control=False)
    discard = RunFolder.discard

    def interrupted(folder: RunFolder) -> None:
        discard(folder)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "discard", interrupted)
        with pytest.raises(KeyboardInterrupt):
            execute(recipe, model="linear", data="digits", out=out, keep=keep)
    assert verify_run(out) == ()
    assert not (out / "report.html").exists()
    outcome = execute(recipe, model="linear", data="digits", out=out, keep=keep, resume=True)
    assert (outcome.record.status, outcome.record.resumed) == ("finished", 0)
    assert (out / "report.html").exists()


COMPILING = """
import os, signal, sys
from numba.core.codegen import CPUCodeLibrary
from sparsight.cli.entry import main

usual = CPUCodeLibrary._object_compiled_hook.__func__

def hook(kind, *about):  # LLVM calls this while it compiles: an exception in it is printed and lost
    hook.calls += 1
    if hook.calls == 3:
        os.kill(os.getpid(), signal.SIGINT)
    return usual(kind, *about)

hook.calls = 0
CPUCodeLibrary._object_compiled_hook = classmethod(hook)
signal.signal(signal.SIGINT, signal.default_int_handler)
code = main(sys.argv[1:])
assert hook.calls >= 3
raise SystemExit(code)
"""


def test_ctrl_c_while_kernels_are_compiled_for_the_first_time(here):
    cold = {**environment(), "NUMBA_CACHE_DIR": str(here / "cold")}
    words = [
        "run",
        "lottery",
        "--epochs",
        "1",
        "--levels",
        "1",
        "--no-control",
        "--data",
        "digits",
        "--model",
        "linear",
    ]
    done = subprocess.run(
        [sys.executable, "-c", COMPILING, *words, "--out", "r"], env=cold, capture_output=True, text=True
    )
    assert done.returncode == 130, done.stderr
    assert done.stderr == "\nsparsight: interrupted; resume with: sparsight run lottery --resume --out r\n"
    with RunFolder.open(Path("r")) as folder:
        assert folder.record.status == "interrupted"


# -- again ----------------------------------------------------------------------------------------------------------


class Pressing:
    """Standard error of someone who presses Ctrl-C again whenever something is written."""

    def __init__(self, number: int) -> None:
        self.number, self.text = number, ""

    def write(self, text: str) -> None:
        signal.raise_signal(self.number)
        self.text += text

    def flush(self) -> None:
        signal.raise_signal(self.number)


def interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=["INT", "TERM", "HUP"])
@pytest.mark.parametrize(
    ("words", "where", "said"),
    [
        (["run", "lottery", "--data", "digits", "--out", "r"], "sparsight.cli.run._execute", "interrupted before"),
        (["study", "f.json", "--out", "s"], "sparsight.runs.study.run_study", "interrupted; run the same command"),
        (["recipes"], "sparsight.cli.recipes.recipes", "interrupted"),
    ],
    ids=["run", "study", "recipes"],
)
def test_a_second_ctrl_c_while_the_first_is_told(here, monkeypatch, number, words, where, said):
    monkeypatch.setattr(where, interrupted)
    monkeypatch.setattr(sys, "stderr", pressing := Pressing(number))
    handlers = [signal.getsignal(n) for n in signals.ENDING]
    assert main(words) == 130
    assert pressing.text.count("sparsight:") == 1
    assert f"sparsight: {said}" in pressing.text
    assert handlers == [signal.getsignal(n) for n in signals.ENDING]


LEAVING = """
import atexit, os, signal, sys
import sparsight.cli.entry as entry

def press():
    os.kill(os.getpid(), signal.SIGINT)

class Late:
    def __del__(self, press=press):
        press()

def in_a_text(argv):  # as numba and dataclasses run their own
    exec("raise KeyboardInterrupt")

if sys.argv[1] == "first":
    atexit.register(press)
if sys.argv[1] == "last":
    late = Late()
if sys.argv[1] == "text":
    entry._dispatch = in_a_text
sys.argv = ["sparsight", "recipes"]
raise SystemExit(entry.main())
"""


@pytest.mark.parametrize(
    ("when", "code", "said"), [("first", 0, ""), ("last", 0, ""), ("text", 130, "sparsight: interrupted\n")]
)
def test_python_ends_with_the_exit_code_and_no_word_of_its_own(tmp_path, when, code, said):
    """Whenever Ctrl-C comes as it tidies up, and wherever the one came that has been told."""
    (tmp_path / "leaving.py").write_text(LEAVING)
    here = {**environment(), "PYTHONPATH": f"{ROOT / 'src'}:{tmp_path}"}
    words = [sys.executable, "-m", "leaving", when]
    listening = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
    done = subprocess.run(words, env=here, capture_output=True, text=True, preexec_fn=listening)
    assert (done.returncode, done.stderr) == (code, said)
    assert ("lottery" in done.stdout) == (code == 0)


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_a_stream_that_a_shell_has_closed(closed):
    line = f"{sys.executable} -m sparsight recipes {closed}"
    done = subprocess.run(line, shell=True, env=environment(), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert (done.stdout == "") == (">&- " in f"{closed} ".replace("2>&-", ""))


# -- where Python cannot raise ---------------------------------------------------------------------------------------


class Finalised:
    def __del__(self):
        signal.raise_signal(signal.SIGTERM)


def finaliser() -> None:
    Finalised()


def callback() -> None:
    ctypes.CFUNCTYPE(None)(lambda: signal.raise_signal(signal.SIGTERM))()


def weak() -> None:
    there = type("There", (), {})()
    keep = weakref.ref(there, lambda ref: signal.raise_signal(signal.SIGTERM))
    del there
    assert keep() is None


@pytest.mark.parametrize("where", [finaliser, callback, weak])
def test_an_interrupt_that_python_would_lose_comes_a_moment_later(where, capfd):
    handlers = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGHUP)}
    hook, reached = sys.unraisablehook, []

    @signals.interruptible()
    def stopped() -> None:
        where()
        reached.append(where)
        threading.Event().wait(60)

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert reached
    assert capfd.readouterr() == ("", "")
    assert sys.unraisablehook is hook
    assert handlers == {n: signal.getsignal(n) for n in handlers}


def test_what_is_ignored_stays_so():
    """As SIGHUP is under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals.interruptible():
            signal.raise_signal(signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_guarded_function_ends_before_it_is_interrupted(number):
    done = []

    @uninterrupted
    def outer() -> None:
        inner()
        done.append("outer")

    @uninterrupted
    def inner() -> None:
        signal.raise_signal(number)
        done.append("inner")

    with signals.interruptible():
        handler = signal.getsignal(number)
        with pytest.raises(KeyboardInterrupt):
            outer()
        assert signal.getsignal(number) is handler
    assert done == ["inner", "outer"]


def test_a_kernel_is_compiled_once_whatever_comes():
    from numba.core import event

    @jit
    def kernel(x: int) -> int:
        return x + 1

    class CtrlC(event.Listener):
        def on_start(self, event):
            signal.raise_signal(signal.SIGINT)

        def on_end(self, event):
            pass

    with event.install_listener("numba:compiler_lock", CtrlC()), pytest.raises(KeyboardInterrupt):
        kernel(1)
    assert len(kernel.signatures) == 1
    assert kernel(1) == 2
