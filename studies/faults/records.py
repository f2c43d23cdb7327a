"""Damage the files of runs and studies, and look at what every reader makes of it.

    python studies/faults/records.py [--mutations 5000] [--seed 0] [--json studies/faults/records.json]

Mutation i is drawn from (seed, i): one of the runs of two recipes (finished, finished with only the chosen weights
kept, interrupted inside a level) or a study of two of them, a file of it, and what is done to it: bits flipped, bytes
changed, cut, repeated or moved, the file lost, or replaced by one of another level, another run or another kind; or
values changed by someone who puts the checksums right again.

Then `verify`, `show --json`, `report` and the run's own command with --resume (of a study: `verify`, its rows and the
study taken up again without a trial left to run) are called in a child. Each must refuse, in one line that names what
is damaged, or give what it gives for the undamaged run; `--resume` then ends with the bits of an undisturbed run, but
for a damaged file that it does not need. `verify` must refuse. A forger's values may be read as they stand; but no
reader may hang, take memory, or let an exception out.

The figures are saved after every 50 mutations; the same command goes on from there.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import io
import json
import os
import random
import resource
import shutil
import signal
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import forked
import torch

from sparsight.cli.entry import main as command
from sparsight.cli.progress import Watcher
from sparsight.records import files
from sparsight.records.tensors import read_tensors, write_tensors
from sparsight.runs.study import Trial, rows, run_study

EVERY, LONGEST, MOST_BYTES = 50, 60, 4 << 30
SHORT = ["--data", "digits", "--epochs", "2", "--threads", "1"]
LINES = {
    "lottery": ["run", "lottery", *SHORT, "--model", "linear", "--levels", "2", "--rewind-epoch", "1"],
    "incop": ["run", "incop", *SHORT, "--levels", "1", "--warmup", "1", "--probes", "64", "--evaluate-every", "1"],
}
HOSTILE: list[Any] = [
    -1, 0, 1, 2, 2**31, 2**63, 2**64, 10**400, 1e308, -1e308, 5e-324, 0.5, "nan", "inf", "-inf", "", "x" * 100_000,
    "a\0b", "\x1b[2J\x1b]0;x\x07", "../../../etc/passwd", "/dev/zero", "\ud800", "\u202egnp", "=1+1", None, True, False,
    [], {}, [[]], {"a": None}, "os:system", "finished", "running", "level", "control", [1, 2, 3], {"": 0}, "0" * 64,
]  # fmt: skip


# -- the runs --------------------------------------------------------------------------------------------------


def made(folder: Path) -> tuple[dict[str, list[str]], dict[str, dict[str, str]]]:
    """The runs in `folder`, by name with their command lines; and what each ends with."""
    lines, ends = {}, {}
    for recipe, line in LINES.items():
        for name, more in (("finished", []), ("chosen", ["--keep", "chosen"]), ("interrupted", [])):
            lines[f"{recipe} {name}"] = [*line, *more]
            code, _, said = quiet([*line, *more, "--out", str(folder / f"{recipe} {name}")])
            if code:
                raise SystemExit(said)
        ends |= {name: forked.contents(folder / name) for name in lines if name.startswith(recipe)}
        shutil.rmtree(folder / f"{recipe} interrupted")
        with interrupting(at=(1, 1.0)):
            quiet([*line, "--out", str(folder / f"{recipe} interrupted")])
        quiet([*line, "--seed", "1", "--out", str(folder / "others" / recipe)])
    return lines, ends


def quiet(line: list[str]) -> tuple[int, str, str]:
    """What a command answers: its exit code and its words."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = command(line)
    return code, out.getvalue(), err.getvalue()


@contextlib.contextmanager
def interrupting(at: tuple[int, float]) -> Iterator[None]:
    """A block in which a run is stopped inside a level, after an epoch."""
    usual = Watcher.__call__

    def stop(self: Watcher, event: Any) -> None:
        usual(self, event)
        if event.kind == "epoch" and event.level == at[0]:
            raise KeyboardInterrupt

    Watcher.__call__ = stop
    try:
        yield
    finally:
        Watcher.__call__ = usual


def study_of(folder: Path, sources: list[Path], target: Path) -> None:
    """A study whose trials are these runs."""
    trials = [Trial("lottery", {"n": n}, seed=n) for n in range(len(sources))]
    from sparsight.records import trials as module

    run_study([], target)
    module.remember(trials, target, module.Shared())
    for trial, source in zip(trials, sources, strict=True):
        shutil.copytree(source, target / "trials" / trial.key)


# -- the damage ------------------------------------------------------------------------------------------------


def flipped(data: bytearray, draw: random.Random) -> None:
    for _ in range(draw.choice((1, 1, 2, 8))):
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)


def changed(data: bytearray, draw: random.Random) -> None:
    at, length = draw.randrange(len(data)), draw.choice((1, 2, 8, 64))
    piece = bytes(draw.randrange(256) for _ in range(length))
    data[at : at + length] = draw.choice((piece, b"", b"\0" * length, data[at : at + length] * 2, b'"', b"}", b"9"))


def cut(data: bytearray, draw: random.Random) -> None:
    del data[draw.randrange(len(data)) :]


def moved(data: bytearray, draw: random.Random) -> None:
    one, two, length = draw.randrange(len(data)), draw.randrange(len(data)), draw.randint(1, 60)
    data[one : one + length] = data[two : two + length]


def swapped(path: Path, run: Path, others: Path, draw: random.Random) -> str:
    """The file is that of another level, run or kind."""
    same = [p for p in sorted(run.rglob("*")) if p.is_file() and p.suffix == path.suffix and p != path]
    away = others / path.relative_to(run)
    source = away if away.exists() and (draw.random() < 0.5 or not same) else draw.choice(same or [path])
    path.write_bytes(source.read_bytes())
    return f"swapped with {source.name}"


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where values stand inside JSON."""
    if at:
        yield at
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(item, (*at, key))


def forged(value: Any, draw: random.Random) -> str:
    """One value inside is another, gone, or of a name that nobody knows; which."""
    at = draw.choice(sorted(places(value), key=str))
    for key in at[:-1]:
        value = value[key]
    kind = draw.random()
    if kind < 0.1:
        del value[at[-1]]
        return f"{at} gone"
    if kind < 0.2 and isinstance(value, dict):
        value["unknown"] = draw.choice(HOSTILE)
        return f"{at[:-1]} has one more"
    value[at[-1]] = new = draw.choice(HOSTILE)
    return f"{at} is {new!r:.30}"


def forge(path: Path, draw: random.Random) -> str:
    """A file with one value changed and right checksums."""
    if path.suffix == ".json":
        fields = files.unseal(json.loads(path.read_text()))
        what = forged(fields, draw)
        text = json.dumps(files.seal(fields), indent=1, sort_keys=True)
        path.write_text(text + "\n")
        return what
    if path.suffix == ".jsonl":
        lines, fields = files.read_lines(path, "")
        parsed = [json.loads(line) for line in lines]
        whole = [parsed, fields] if parsed else [fields]
        what = forged(whole, draw)
        listed = whole[0] if parsed and isinstance(whole[0], list) else []
        texts = [json.dumps(one, sort_keys=True, separators=(",", ":")) for one in listed]
        files.write_lines(path, texts, whole[-1] if whole and isinstance(whole[-1], dict) else {})
        return what
    tensors, facts, _ = read_tensors(path, "")
    what = forged(facts, draw) if draw.random() < 0.5 and facts else other_tensors(tensors, draw)
    write_tensors(path, tensors, facts)
    return what


def other_tensors(tensors: dict[str, torch.Tensor], draw: random.Random) -> str:
    name = draw.choice(sorted(tensors))
    tensor = tensors[name]
    floating = tensor.is_floating_point()
    changes: dict[str, Callable[[], Any]] = {
        "gone": lambda: tensors.pop(name),
        "more": lambda: tensors.update({"unknown": tensor}),
        "of float64": lambda: tensors.update({name: tensor.double()}),
        "of int32": lambda: tensors.update({name: tensor.to(torch.int32)}),
        "flat": lambda: tensors.update({name: tensor.flatten()[:-1]}),
        "empty": lambda: tensors.update({name: tensor.new_empty(0)}),
        "NaN": lambda: tensors.update({name: torch.full_like(tensor, float("nan") if floating else 255 % 127)}),
        "called otherwise": lambda: tensors.update({f"{name}\x1b[2J": tensors.pop(name)}),
    }
    what = draw.choice(sorted(changes))
    changes[what]()
    return f"{name} {what}"


def damage(run: Path, others: Path, draw: random.Random) -> tuple[str, str, str]:
    """Which file, which kind of damage, and what it is."""
    named = [p for p in sorted(run.rglob("*")) if p.is_file() and p.name not in ("run.lock", "report.html")]
    path = draw.choice(named)
    shown = str(path.relative_to(run))
    kind = draw.choice(("flipped", "flipped", "changed", "cut", "moved", "lost", "swapped", "forged", "forged"))
    if kind == "lost":
        path.unlink()
        return shown, kind, ""
    if kind == "swapped":
        return shown, kind, swapped(path, run, others, draw)
    if kind == "forged":
        return shown, kind, forge(path, draw)
    data = bytearray(path.read_bytes())
    before = bytes(data)
    {"flipped": flipped, "changed": changed, "cut": cut, "moved": moved}[kind](data, draw)
    path.write_bytes(bytes(data))
    return shown, kind if bytes(data) != before else "unchanged", f"{len(before)} to {len(data)} bytes"


# -- the readers -----------------------------------------------------------------------------------------------


def read_run(run: Path, line: list[str]) -> Iterator[tuple[str, int, str, Any]]:
    """Of each reader its name, exit code, what it says is wrong, and what it gives."""
    code, out, err = quiet(["verify", str(run)])
    yield "verify", code, out if code == 3 else err, out
    code, out, err = quiet(["show", str(run), "--json"])
    yield "show", code, err, out
    code, out, err = quiet(["report", str(run)])
    yield "report", code, err, (run / "report.html").read_text() if code == 0 else None
    code, out, err = quiet([*line, "--out", str(run), "--resume"])
    yield "resume", code, err, forked.contents(run) if code == 0 else None


def read_study(study: Path) -> Iterator[tuple[str, int, str, Any]]:
    code, out, err = quiet(["verify", str(study)])
    yield "verify", code, out if code == 3 else err, out
    for name, read in (("rows", rows), ("taken up", lambda out: run_study([], out) or "")):
        try:
            yield name, 0, "", json.dumps(read(study), default=str)
        except files.DamagedFile as error:
            yield name, 3, str(error), None
        except (ValueError, OSError) as error:
            yield name, 2, str(error), None


def judged(found: list[Any], right: list[Any], place: Path, path: str, kind: str) -> tuple[list[str], str | None]:
    """A word on each reader, and what is wrong."""
    verdicts = []
    for (name, code, said, gave), (_, _, _, usual) in zip(found, right, strict=True):
        if "Traceback" in said or "unexpected " in said:
            return verdicts, f"{name}: {said[-300:]}"
        if code == 0:
            if name == "resume":
                gave, usual = ({k: v for k, v in both.items() if k != path} for both in (gave, usual))
            if kind == "lost" and path.endswith(("times.jsonl", "evaluation.json")):
                usual = gave  # no more than the seconds, or what the test split said, is lost
            if gave != usual and kind != "forged":
                return verdicts, f"{name} gives something else"
            verdicts.append(f"{name}: right" if gave == usual else f"{name}: as forged")
            continue
        clear = str(place) in said or "the folder holds another run" in said
        lines = said.rstrip("\n").split("\n")
        if (name, kind, code in (1, 2)) == ("resume", "forged", True) and said.startswith("sparsight: "):
            verdicts.append("resume: stopped by what was forged")
            continue
        long = (name != "verify" and len(lines) > 1) or any(len(line) > 3000 for line in lines)
        if code not in (2, 3) or not clear or long:
            return verdicts, f"{name}: exit code {code}: {said[:400]}"
        verdicts.append(f"{name}: refused")
    if kind not in ("forged", "unchanged") and all(verdict.endswith("right") for verdict in verdicts):
        verdicts.append("harmless")
    elif kind not in ("forged", "unchanged") and verdicts[0] != "verify: refused":
        return verdicts, "verify does not see it"
    return verdicts, None


@dataclass
class Bench:
    """The runs, the command line of each, and what its readers give while it is not damaged."""

    root: Path
    seed: int
    lines: dict[str, list[str]]
    sources: list[Path]
    right: dict[str, list[Any]]

    @classmethod
    def set_up(cls, root: Path, seed: int) -> Bench:
        lines, ends = made(root / "runs")
        sources = [root / "runs" / name for name in lines]
        study_of(root, [sources[0], sources[-1]], root / "runs" / "study")
        bench = cls(root, seed, lines, [*sources, root / "runs" / "study"], {})
        for source in bench.sources:
            run = bench.copied(source)
            bench.right[source.name] = bench.read(source.name, run)
            if any(one[1] for one in bench.right[source.name]):
                raise SystemExit(f"{source.name}: {bench.right[source.name]}")
            if source.name in ends and bench.right[source.name][-1][-1] != ends[source.name]:
                raise SystemExit(f"{source.name} resumes to other bits")
        return bench

    def copied(self, source: Path) -> Path:
        run = self.root / "damaged"
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(source, run)
        return run

    def read(self, name: str, run: Path) -> list[Any]:
        return list(read_study(run) if name == "study" else read_run(run, self.lines[name]))

    def mutation(self, i: int) -> dict[str, Any]:
        draw = random.Random(f"{self.seed} {i}")
        source = draw.choice(self.sources)
        others = self.root / "runs" / "others" / source.name.split()[0]
        run = self.copied(source)
        path, kind, what = damage(run, others, draw)
        verdicts, wrong = judged(self.read(source.name, run), self.right[source.name], run, path, kind)
        about = {"mutation": i, "run": source.name, "file": path, "kind": kind, "what": what}
        return {**about, "verdicts": verdicts, "wrong": wrong}

    def mutations(self, todo: Sequence[int]) -> list[dict[str, Any]]:
        """Of each what came of it, in a child that may hang or die."""
        log = self.root / "log"
        log.write_text("")
        pid = os.fork()
        if not pid:
            try:
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                space = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
                resource.setrlimit(resource.RLIMIT_AS, (space + MOST_BYTES, resource.RLIM_INFINITY))
                with open(log, "a") as file:
                    for i in todo:
                        signal.alarm(LONGEST)
                        try:
                            found = self.mutation(i)
                        except BaseException as error:  # whatever a reader lets out
                            wrong = f"an exception: {type(error).__name__}: {error!s:.300}"
                            found = {"mutation": i, "kind": "", "verdicts": [], "wrong": wrong}
                        file.write(json.dumps(found) + "\n")
                        file.flush()
            finally:
                os._exit(0)
        _, status = os.waitpid(pid, 0)
        found = [json.loads(line) for line in log.read_text().splitlines()]
        if len(found) < len(todo):
            wrong = f"it hangs or dies ({status})"
            found.append({"mutation": todo[len(found)], "kind": "", "verdicts": [], "wrong": wrong})
        return found


def once() -> None:
    """Let a command line be understood once: that is most of what a command takes that refuses a damaged run."""
    from sparsight.cli import run_options

    usual, known = run_options.parse, {}

    def parse(kinds: Any, given: Sequence[str], prog: str, description: str) -> Any:
        if (prog, *given) not in known:
            known[(prog, *given)] = usual(kinds, given, prog, description)
        return known[(prog, *given)]

    run_options.parse = parse


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mutations", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, nargs="*", help="these alone, without a record")
    parser.add_argument("--json", type=Path, default=Path(__file__).with_suffix(".json"))
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    forked.load()
    once()
    done: dict[str, Any] = {"command": "python studies/faults/records.py", "seed": args.seed, "mutations": 0}
    done |= {"kinds": {}, "readers": {}, "wrong": []}
    if args.json.exists() and json.loads(args.json.read_text())["seed"] == args.seed and not args.only:
        done = json.loads(args.json.read_text())
    with tempfile.TemporaryDirectory() as name:
        bench = Bench.set_up(Path(name), args.seed)
        if args.only:
            for found in bench.mutations(args.only):
                print(json.dumps(found, indent=1))
            return
        while done["mutations"] < args.mutations:
            begin = done["mutations"]
            for found in bench.mutations(range(begin, min(begin - begin % EVERY + EVERY, args.mutations))):
                for at, words in (("kinds", [found["kind"]]), ("readers", found["verdicts"])):
                    done[at] = dict(sorted((collections.Counter(done[at]) + collections.Counter(words)).items()))
                if found["wrong"] is not None:
                    done["wrong"].append(found)
                    print(json.dumps(found), flush=True)
                done["mutations"] += 1
            args.json.write_text(json.dumps(done, indent=1) + "\n")
    print(json.dumps({key: done[key] for key in ("mutations", "kinds", "readers")}, indent=1))
    raise SystemExit(1 if done["wrong"] else 0)


if __name__ == "__main__":
    main()
