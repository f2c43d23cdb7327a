"""The same numbers as at a frozen commit, on the same machine: content ids, masks, counts, accuracies, measurements.

    python studies/frozen/compare.py                 both checkouts, then the comparison; exit code 1 if they differ
    python studies/frozen/compare.py --commit HASH   another commit to compare with
    python studies/frozen/compare.py --only sap      some of the cases

Content ids hash the bits of floats and differ between processors, which is why the two checkouts are run side by side
instead of comparing with a stored file. Everything goes through the command line, one thread, seed 0.

Since that commit the roots of the edge of chaos are Brent's (`phase`: last digits), Gini and exact eta come from drawn
weights (`analyze`), and PQ indices of float32 at (0.5, 1) are exact to 1e-10 instead of 5e-9: these differ on purpose,
content ids, masks, counts, accuracies and certificates do not.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

COMMIT = "789a0494dfa17603b763c25c21afd499047a7604"
"""The last commit before the house was rebuilt."""

ROOT = Path(__file__).resolve().parents[2]

RUNS = {  # name -> words after `sparsight run`
    "sap": "sap --epochs 2 --levels 2",
    "sap-05-1": "sap --epochs 2 --levels 2 --p 0.5 --q 1 --scope neuron",
    "sap-carry-on": "sap --epochs 3 --levels 3 --carry-on",
    "sap-pq-minimum": "sap --epochs 1 --levels 3 --until pq-minimum",
    "sap-target": "sap --epochs 1 --levels 3 --target-density 0.35",
    "lottery": "lottery --epochs 2 --levels 3 --rewind-epoch 1",
    "lottery-layer": "lottery --epochs 1 --levels 2 --scope layer --rate 0.5",
    "lottery-carry-on": "lottery --epochs 3 --levels 3 --carry-on",
    "lottery-middle": "lottery --epochs 2 --levels 3 --middle-epochs 1 --evaluate-every 0.5",
    "oneshot": "oneshot --epochs 2 --levels 2",
    "incop": "incop --warmup 2 --epochs 3 --levels 2 --evaluate-every 1",
    "incop-both": "incop --warmup 2 --epochs 3 --levels 2 --variant both --prune lottery --preset ours",
    "sipp-det": "sipp --epochs 1 --levels 2 --variant det",
    "sipp-rand": "sipp --epochs 1 --levels 2 --variant rand --delta 0.5",
    "sipp-hybrid": "sipp --epochs 1 --levels 2 --variant hybrid --order oneshot --delta 0.5",
    "sipp-untrained": "sipp --epochs 1 --levels 1 --untrained --target-density 0.3",
    "snip": "snip --epochs 2 --density 0.1",
    "snip-rounds": "snip --epochs 1 --density 0.05 --rounds 5 --recover",
    "grasp": "grasp --epochs 2 --density 0.1",
    "synflow": "synflow --epochs 1 --density 0.1",
    "sbp": "sbp --epochs 2 --density 0.1",
    "sbp-sr": "sbp-sr --epochs 1 --density 0.2",
    "magnitude-at-init": "magnitude-at-init --epochs 1 --density 0.2",
    "random-at-init": "random-at-init --epochs 1 --density 0.2",
}

OTHERS = {  # name -> words after `sparsight`; {runs} and {files} are folders
    "certify": "certify {runs}/sipp-det --level 1 --as-pruned --json",
    "phase": "phase --activation tanh --model mlp --critical --json",
    "analyze-safetensors": "analyze {runs}/lottery/model.safetensors --json",
    "analyze-run": "analyze {runs}/sap --json",
    "analyze-shards": "analyze {files}/shards --json --p 1 0.5 --q 2 1",
    "analyze-pt": "analyze {files}/model.pt --json --exact",
}

FILES = """
import json, sys, torch
from pathlib import Path
from safetensors.torch import save_file
at = Path(sys.argv[1])
generator = torch.Generator().manual_seed(0)
draw = lambda *shape: torch.randn(*shape, generator=generator)
state = {"a.weight": draw(300, 784), "b.weight": draw(16, 6, 5, 5), "b.bias": draw(16), "c.weight": draw(40, 50).half()}
state["a.weight"][draw(300, 784) > 0.5] = 0
torch.save({"state_dict": state, "epoch": 3}, at / "model.pt")
shards = at / "shards"
shards.mkdir()
parts = {"model-00001.safetensors": ["a.weight"], "model-00002.safetensors": ["b.weight", "b.bias", "c.weight"]}
for file, names in parts.items():
    save_file({name: state[name] for name in names}, shards / file)
weights = {name: file for file, names in parts.items() for name in names}
(shards / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}))
"""

NOT_COMPARED = {
    "operation",
    "notes",
    "path",
    "source",
    "seconds",
    "version",
    "started",
    "ended",
    "command",
    "description",
    "why",
}
"""Keys whose values may change with the names of things."""


def run_all(checkout: Path, at: Path, files: Path, only: list[str]) -> dict[str, Any]:
    """What every case gives in one checkout."""
    found: dict[str, Any] = {}
    for name, words in RUNS.items():
        if not only or name in only:
            sparsight(checkout, f"run {words} --data digits --batch-size 50 --threads 1 --out {at / name}")
            found[name] = levels(at / name)
    for name, words in OTHERS.items():
        if not only or name in only:
            text = sparsight(checkout, words.format(runs=at, files=files))
            found[name] = json.loads(text[text.index("{") :])
    return found


def sparsight(checkout: Path, words: str) -> str:
    """The standard output of a command line of the checkout."""
    environment = os.environ | {"PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "sparsight", *words.split()]
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} in {checkout}: exit code {done.returncode}\n{done.stderr}")
    return done.stdout


def levels(folder: Path) -> Any:
    """The records of a run: its levels, and what the test split said."""
    lines = [json.loads(line) for line in (folder / "levels.jsonl").read_text().splitlines()[:-1]]
    run, evaluation = (json.loads((folder / f"{name}.json").read_text())["record"] for name in ("run", "evaluation"))
    return {"levels": lines, "chosen": run["chosen"], "evaluation": evaluation}


def differences(old: Any, new: Any, where: str = "") -> list[str]:
    """Where two values of JSON differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [key for key in old if key not in NOT_COMPARED]
        missing = [f"{where}.{key}: missing" for key in keys if key not in new]
        return missing + [d for key in keys if key in new for d in differences(old[key], new[key], f"{where}.{key}")]
    if isinstance(old, list) and isinstance(new, list):
        if len(old) != len(new):
            return [f"{where}: {len(old)} and {len(new)} entries"]
        return [d for i, (a, b) in enumerate(zip(old, new, strict=True)) for d in differences(a, b, f"{where}[{i}]")]
    same = old == new or (isinstance(old, float) and isinstance(new, float) and math.isnan(old) and math.isnan(new))
    return [] if same else [f"{where}: {old!r:.60} and {new!r:.60}"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--commit", default=COMMIT)
    parser.add_argument("--only", nargs="*", default=[])
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder)
        old, files = at / "old", at / "files"
        subprocess.run(["git", "worktree", "add", "--detach", str(old), asked.commit], cwd=ROOT, check=True)
        try:
            files.mkdir()
            subprocess.run([sys.executable, "-c", FILES, str(files)], check=True)
            before = run_all(old, at / "runs-old", files, asked.only)
            now = run_all(ROOT, at / "runs-new", files, asked.only)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(old)], cwd=ROOT, check=True)
    failed = 0
    for name, value in before.items():
        found = differences(value, now[name])
        failed += bool(found)
        print(f"{name}: {'equal' if not found else f'{len(found)} differences'}")
        for line in found[:8]:
            print(f"    {line}")
    print(f"{len(before) - failed} of {len(before)} cases equal to {asked.commit[:12]}")
    return int(failed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
