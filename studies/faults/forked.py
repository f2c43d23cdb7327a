"""Commands of Sparsight, each in a process forked off one that has imported everything: a trial costs what it does."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any

ROOT = Path(__file__).parents[2]
LONGEST = 120.0
"""Seconds after which a command hangs."""
RAISED = 99
"""The exit code of a child out of which an exception came, which `main` never lets out."""

SMALL = ["--data", "digits", "--model", "mlp", "--epochs", "1", "--threads", "1"]
RECIPES: dict[str, list[str]] = {
    **{name: ["--levels", "2"] for name in ("sap", "lottery", "oneshot")},
    "sap --carry-on": ["--levels", "3", "--carry-on"],
    "lottery --carry-on": ["--levels", "3", "--carry-on", "--rate", "0.5"],
    "incop": ["--levels", "2", "--warmup", "1", "--evaluate-every", "0.5"],
    "sipp": ["--levels", "2"],
    **{n: [] for n in ("snip", "grasp", "synflow", "sbp", "sbp-sr", "magnitude-at-init", "random-at-init")},
}
"""Small runs of every recipe, by name: the options that each takes beside `SMALL`."""


def words(name: str, out: Path, *more: str) -> list[str]:
    """The command line of one of the small runs."""
    return ["run", name.split()[0], *SMALL, *RECIPES[name], "--out", str(out), *more]


def again(name: str, out: Path, *more: str) -> list[str]:
    """The same command as someone gives it who wants the run to go on: with --resume once it has begun."""
    return words(name, out, *(["--resume"] if (out / "run.json").exists() else []), *more)


def load() -> None:
    """Import what the commands import and load the kernels that they use, so that no child has to."""
    import importlib
    import tempfile

    import torch

    torch.set_num_threads(1)
    modules = ["cli.entry", *(f"cli.{n}" for n in ("run", "show", "compare", "analyze", "study"))]
    modules += ["cli.progress", "cli.run_options", "runs.execute", "runs.study", "analysis"]
    modules += [f"recipes.{name.split()[0].replace('-', '_')}" for name in RECIPES]
    for name in ("torch._dynamo", "accelerate", "torch.distributed.fsdp", *(f"sparsight.{name}" for name in modules)):
        importlib.import_module(name)
    from sparsight.cli.entry import main

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        for name in ("sap", "incop", "sipp", "synflow", "grasp"):
            main(words(name, Path(folder) / name))


@dataclass
class Child:
    """A command that runs, or has run, and what it says."""

    pid: int
    stdout: Path
    stderr: Path
    started: float
    code: int | None = None
    """Its exit code; -9 of one that was killed."""

    def ended(self) -> bool:
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code is not None

    def wait(self, longest: float = LONGEST) -> int | None:
        """The exit code; None of a command that hangs, which is killed."""
        while not self.ended():
            if monotonic() - self.started > longest:
                self.send(signal.SIGKILL)
                os.waitpid(self.pid, 0)
                return None
            sleep(0.002)
        return self.code

    def send(self, number: int) -> None:
        if not self.ended():
            os.kill(self.pid, number)

    def after(self, seconds: float, number: int = signal.SIGKILL) -> bool:
        """Send a signal so many seconds after the start; whether it had not ended by then."""
        while monotonic() - self.started < seconds and not self.ended():
            sleep(0.0005)
        alive = not self.ended()
        self.send(number)
        if number == signal.SIGKILL:
            self.wait()
        return alive

    @property
    def said(self) -> str:
        return self.stdout.read_text(errors="replace")

    @property
    def errors(self) -> str:
        return self.stderr.read_text(errors="replace")


def start(line: Sequence[str], log: Path, before: Callable[[], Any] | None = None) -> Child:
    """Begin `sparsight LINE` in a child, which calls `before` first. `log` is a folder for what it says."""
    stdout, stderr = log / "stdout", log / "stderr"
    sys.stdout.flush()
    sys.stderr.flush()
    files = [os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) for path in (stdout, stderr)]
    started = monotonic()
    pid = os.fork()
    if pid:
        for file in files:
            os.close(file)
        return Child(pid, stdout, stderr, started)
    code = RAISED
    try:
        for number, file in enumerate(files, 1):
            os.dup2(file, number)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if before is not None:
            before()
        from sparsight.cli.entry import main

        code = main(line)
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def call(line: Sequence[str], log: Path) -> Child:
    """`sparsight LINE`, waited for."""
    child = start(line, log)
    child.wait()
    return child


def fault(child: Child) -> str | None:
    """What is wrong with how a command ended, whatever its answer: a hang, an exception, words that nobody meant."""
    if child.code is None:
        return "it hangs"
    for text in (child.errors, child.said):
        if "Traceback" in text or "unexpected " in text:
            return f"exit code {child.code}: {text[-400:]}"
    return None if 0 <= child.code < RAISED else f"exit code {child.code}"


# -- what is in a run folder -----------------------------------------------------------------------------------

CLOCKED = ("times.jsonl", "report.html", "run.lock")
"""Files that know a clock."""


def contents(run: Path) -> dict[str, str]:
    """The SHA-256 of each file of a run; of run.json, of what no clock and no second command writes into it."""
    found = {}
    for path in sorted(run.rglob("*")):
        if path.is_file() and path.name not in CLOCKED:
            data = path.read_bytes()
            if path.name == "run.json":
                record = json.loads(data)["record"]
                data = json.dumps({k: v for k, v in record.items() if k not in _TOLD}, sort_keys=True).encode()
            found[str(path.relative_to(run))] = hashlib.sha256(data).hexdigest()
    return found


_TOLD = ("started", "ended", "resumed", "command")


# -- results ---------------------------------------------------------------------------------------------------


class Results:
    """The trials so far, in a file that the same command goes on from."""

    def __init__(self, path: Path, **setting: Any) -> None:
        self.path = path
        self.done: dict[str, Any] = {**setting, "trials": []}
        if path.exists():
            found = json.loads(path.read_text())
            if all(found.get(key) == value for key, value in setting.items()):
                self.done = found

    @property
    def trials(self) -> list[dict[str, Any]]:
        return self.done["trials"]

    def add(self, trial: dict[str, Any]) -> None:
        self.trials.append(trial)
        self.save()

    def save(self) -> None:
        rows = ",\n  ".join(json.dumps(trial) for trial in self.trials)
        others = {key: value for key, value in self.done.items() if key != "trials"}
        text = json.dumps({**others, "trials": []}, indent=1)
        part = self.path.with_suffix(".part")
        part.write_text(text.replace('"trials": []', f'"trials": [\n  {rows}\n ]' if rows else '"trials": []') + "\n")
        part.replace(self.path)

    def wrong(self) -> list[dict[str, Any]]:
        return [trial for trial in self.trials if trial["wrong"]]
