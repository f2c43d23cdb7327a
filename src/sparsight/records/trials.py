"""The trials of a study, and its folder.

study.json       the trials, by key, and what all of them share
trials/KEY/      a run folder
logs/KEY.log     the output of the run
shared/          training of the dense network that several runs share
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from sparsight.numerics.checks import check_seed
from sparsight.records import files
from sparsight.records.files import DamagedFile, reading, there
from sparsight.records.folder import RunFolder
from sparsight.records.folder_files import REMEDIES
from sparsight.records.record import Keep, from_json
from sparsight.records.verify import verify_run

PAGE = "compare.html"
TABLES = ("rows.csv", "rows.json", "rows.md", "summary.csv", "summary.md", PAGE)
"""Files computed from the runs."""


@dataclass(frozen=True)
class Trial:
    """One run of a study. `arguments` are the recipe's, `options` those of any run; `label` groups trials in tables."""

    recipe: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    model: str = "mlp"
    data: str = "fashion-mnist"
    label: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    folder: str = ""  # its folder's name in an older study, if different

    def __post_init__(self) -> None:
        if "seed" in self.arguments:
            raise ValueError("the seed is a field of the trial, not one of its arguments")
        check_seed(self.seed)

    @property
    def digest(self) -> str:
        """A hash of everything but the label."""
        left_out = ("label", "options", "folder")
        what = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in left_out}
        own = {"arguments": dict(self.arguments), **({"options": dict(self.options)} if self.options else {})}
        return hashlib.sha256(files.canonical({**what, **own}).encode()).hexdigest()[:10]

    @property
    def key(self) -> str:
        """Name of the trial's folder: the last words of recipe, model and data, the seed, and the digest."""
        words = [re.split("[:/]", name.rstrip("/"))[-1] for name in (self.recipe, self.model, self.data)]
        plain = re.sub(r"[^A-Za-z0-9.]+", "-", "-".join([*words, f"seed{self.seed}"])).strip("-.")
        return self.folder or f"{plain[:80]}-{self.digest}"


@dataclass(frozen=True)
class Shared:
    """What all trials of a study have in common."""

    device: str = "auto"
    precision: str = "no"
    keep: Keep = "chosen"


@dataclass(frozen=True)
class Ended:
    """How a trial ended: finished now, skipped because already finished, or failed (see the log)."""

    trial: Trial
    status: Literal["finished", "skipped", "failed"]
    log: Path
    why: str = ""  # of a failed trial: the last line of its log


def placed(trials: Sequence[Trial], out: Path) -> list[Trial]:
    """The trials, with their folder names in the study in `out`, if they have any. Raises: as `read_study`."""
    known = {trial.digest: trial for trial in read_study(out)[0].values()} if there(out / "study.json") else {}
    return [replace(trial, folder=known.get(trial.digest, trial).folder) for trial in trials]


def remember(trials: Sequence[Trial], out: Path, shared: Shared) -> list[Trial]:
    """Store the trials, with those of earlier calls, and delete outdated tables. Returns the trials from `placed`.

    Raises: ValueError for a repeated trial, or if `out` holds a study with another device or precision.
    """
    how, trials = dataclasses.asdict(shared), placed(trials, out)
    keys = [trial.key for trial in trials]
    twice = next((trial for trial in trials if keys.count(trial.key) > 1), None)
    if twice is not None:
        raise ValueError(f"a trial is there twice: {files.canonical(dataclasses.asdict(twice))}")
    known: Mapping[str, Trial] = {}
    if there(out / "study.json"):
        known, before = read_study(out)
        if before != how:
            raise ValueError(f"{out} holds a study with {dict(before)}: got {how}; take another folder")
    for folder in (out / "trials", out / "logs"):
        files.make_folder(folder)
    every = {**known, **dict(zip(keys, trials, strict=True))}
    listed = {key: {n: v for n, v in dataclasses.asdict(t).items() if n != "folder"} for key, t in every.items()}
    sealed = files.seal({"trials": listed, "shared": how})
    files.write_atomically(out / "study.json", [json.dumps(sealed, indent=1).encode() + b"\n"])
    for name in TABLES:
        files.try_remove(out / name)
    return trials


def read_study(out: Path) -> tuple[dict[str, Trial], Mapping[str, str]]:
    """The trials in study.json by key, and what all of them share. Raises: FileNotFoundError, DamagedFile."""
    path, remedy = out / "study.json", "delete it and run the study's command again, which lists its trials"
    if not there(path):
        raise FileNotFoundError(f"there is no study in {out}: it has no study.json")
    with reading(path, remedy):
        found = files.parse_json(files.read_text(path, remedy))
        found = files.unseal(found) if "sha256" in found else found  # version 0.1 wrote no checksum
        trials = {key: from_json(Trial, fields, f"trials.{key}") for key, fields in found["trials"].items()}
        for key, trial in trials.items():
            if trial.key != key and re.fullmatch(rf"[A-Za-z0-9][A-Za-z0-9.-]*-{trial.digest}", key) is None:
                raise ValueError(f"the trial {key!r:.80} is another one, {trial.key!r}")
        trials = {key: trial if trial.key == key else replace(trial, folder=key) for key, trial in trials.items()}
        return trials, from_json(dict[str, str], found.get("shared", {}), "shared")


def verify_study(out: Path | str) -> tuple[DamagedFile, ...]:
    """The damaged files of the study in `out`: study.json, and those of each run from `verify_run`.

    Ignores tables and logs. Raises: FileNotFoundError without a study.
    """
    try:
        trials, _ = read_study(Path(out))
    except DamagedFile as error:
        return (error,)
    found: list[DamagedFile] = []
    for key in trials:
        run = Path(out) / "trials" / key
        try:
            found += verify_run(run) if begun(run) else ()
        except DamagedFile as error:
            found.append(error)
    return tuple(found)


def begun(folder: Path) -> bool:
    """Whether a run has begun in the folder. Raises: DamagedFile for one without its run.json."""
    found = there(folder / "run.json")
    if not found and (there(folder / "levels") or there(folder / "state.safetensors")):
        raise DamagedFile(folder / "run.json", "there is no such file", REMEDIES["run.json"])
    return found


def stored(folder: Path) -> dict[str, Any]:
    """Whether the run in `folder` is done, and its threads; {} if none has begun, None if unreadable."""
    if not there(folder / "run.json"):
        return {}
    try:
        with RunFolder.open(folder) as run:
            done = run.record.status == "finished" and there(folder / "report.html")  # written last
            return {"done": done, "threads": run.record.environment.get("threads")}
    except (ValueError, OSError):
        return {"done": None}  # the trial's own process says in its log what is wrong


def command(trial: Trial) -> list[str]:
    """The words after `sparsight` that run the trial."""
    words = ["run", trial.recipe, f"--seed={trial.seed}", f"--model={trial.model}", f"--data={trial.data}"]
    for name, value in {**trial.arguments, **trial.options}.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, (list, tuple)):
            words += [f"--{flag}", *_flat(value)]
        else:
            words.append(f"--{flag}={value}")
    return words


def log_of(trial: Trial, out: Path) -> Path:
    """The log file of a trial."""
    return out / "logs" / f"{trial.key}.log"


def _flat(values: Iterable[Any]) -> list[str]:
    return [w for v in values for w in (_flat(v) if isinstance(v, (list, tuple)) else [str(v)])]
