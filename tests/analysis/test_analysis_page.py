"""The page of an analysis and the command: what they say, what they escape, and their exit codes."""

import html
import json
import sys
from pathlib import Path

import pytest
import torch
from pages import HOSTILE, looked_at, needs_browser, read, specs, tab
from safetensors.torch import save_file
from torch import nn

from sparsight.analysis import Trajectory, analyze
from sparsight.analysis.page import page, path_page
from sparsight.analysis.text import path_table
from sparsight.analysis.trajectory import path_of
from sparsight.checkpoint import CheckpointError
from sparsight.cli import analyze as command
from sparsight.cli.errors import Misuse, NotFound
from sparsight.cli.network_options import AnalyzeOptions
from sparsight.cli.options import options
from sparsight.records.record import LevelRecord


def main(words: list[str]) -> int:
    return command.main(options(AnalyzeOptions, words, "sparsight analyze"))


def state(n: int = 3) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return {f"l{i}.weight": torch.randn(20, 30, generator=g) ** (2 * i + 1) for i in range(n)}


def level(i: int, index: float, accuracy: float | None = 0.9) -> LevelRecord:
    from sparsight.train.observation import Observation

    seen = () if accuracy is None else (Observation(1.0, 1, validation_accuracy=accuracy),)
    return LevelRecord(
        i, "level", str(i), None, {}, 1000 >> i, 1000, (), ((0.5, 1.0), (1.0, 2.0)), (index, index / 2), (), (), (),
        seen, 1.0, 1,
    )  # fmt: skip


def walked(*indices: float) -> Trajectory:
    levels = [level(i, v, 0.9 - 0.01 * i) for i, v in enumerate(indices)]
    return path_of("runs/sap-001", "sap", levels, None)


# -- the page --------------------------------------------------------------------------------------------------


PAGES = {
    "usual": lambda: page(analyze({**state(), "l0.bias": torch.ones(3)}, (0.5, 1.0), (1.0, 2.0), (0.0, 0.1))),
    "hostile": lambda: page(analyze({HOSTILE: torch.randn(3, 3), f"{HOSTILE}.bias": torch.ones(3)})),
    "zero": lambda: page(analyze({"z.weight": torch.zeros(3, 3)})),
    "nothing": lambda: page(analyze({"z.bias": torch.zeros(3)})),
    "many": lambda: page(analyze({f"layer{i}.weight": torch.randn(4, 4) for i in range(300)})),
    "without a sample": lambda: page(analyze(state(), eta=0.1, sample=False)),
    "path": lambda: path_page(walked(0.3, 0.2, 0.4, 0.6, 0.1)),
    "short path": lambda: path_page(walked(0.3)),
}


@pytest.mark.parametrize("kind", PAGES)
def test_page_is_whole_and_alone(kind: str):
    text = PAGES[kind]()
    seen = read(text)
    assert "default-src 'none'" in html.unescape(text)
    assert {f"chart-{name}" for name in specs(text)} <= set(seen.ids)
    assert "<script>alert" not in text
    assert "\u202e" not in text


def test_page_has_the_numbers():
    found = analyze(state(), eta=0.1)
    rows = read(page(found)).rows["Every tensor, in the order of the file"]
    assert [r[0] for r in rows[1:]] == ["l0.weight", "l1.weight", "l2.weight", "all together"]
    assert rows[1][5] == f"{found.tensors[0].summary.measures[0].index:.4f}"
    assert rows[1][7] == f"{found.tensors[0].summary.measures[0].keeps[0].prune:,}"


def test_charts_have_the_numbers():
    found = analyze(state(), eta=0.1)
    sets = specs(page(found))["tensors"]["datasets"]
    assert [p["y"] for p in sets["points"]] == [t.summary.measures[0].index for t in found.tensors]
    assert [b["share"] for b in sets["bars"]] == [t.summary.measures[0].keeps[0].share for t in found.tensors]
    rows = read(page(found)).rows["Share of each tensor's weights by magnitude"]
    assert [r[0] for r in rows[1:]] == ["l0.weight", "l1.weight", "l2.weight"]


@pytest.mark.browser
@needs_browser
@pytest.mark.parametrize("kind", ["usual", "hostile", "path"])
def test_page_in_a_browser(kind: str, tmp_path: Path):
    where = tmp_path / "page.html"
    where.write_text(PAGES[kind](), encoding="utf-8")
    assert "PQ index" in looked_at(where, tmp_path)


@pytest.mark.browser
@needs_browser
def test_a_brush_along_the_depth_chooses_tensors(tmp_path: Path):
    where = tmp_path / "page.html"
    where.write_text(PAGES["many"](), encoding="utf-8")
    with tab(tmp_path) as shown:
        shown.open(where)
        named = "[...document.querySelectorAll('#chart-tensors .role-axis-label text')].map(x => x.textContent)"
        tensors = f"{named}.filter(x => x.startsWith('layer'))"
        assert len(shown.run(tensors)) == 80
        x, y, width, _ = shown.box("#chart-tensors svg")
        shown.mouse((x + width - 300, y + 100), (x + width - 290, y + 110), (x + width - 280, y + 120), press=True)
        shown.until(f"{tensors}.length < 40")
        left = [int(name.removeprefix("layer").removesuffix(".weight")) for name in shown.run(tensors)]
        assert left == [*range(left[0], left[-1] + 1)]
        assert shown.console == []


# -- the path --------------------------------------------------------------------------------------------------


def test_path():
    found = walked(0.3, 0.2, 0.4, 0.6, 0.1)
    assert (found.minimum, found.peak, found.phase) == (1, 3, "collapsing")
    assert "lowest, 0.2000, at level 1, where 50.0 % of the weights are left" in found.meaning
    assert "validation accuracy 89.0 %, 1.0 points below level 0" in found.meaning
    assert "collapsing" in found.meaning
    lines = path_table(found).splitlines()
    assert lines[2].endswith("minimum")
    assert lines[4].endswith("peak")
    assert max(map(len, lines)) <= 80
    assert "still falling" in walked(0.3, 0.2).meaning
    assert "not risen clearly" in walked(0.3, 0.2, 0.205).meaning
    assert "compresses" in walked(0.3, 0.2, 0.3).meaning


def test_path_at_another_pair():
    levels = [level(0, 0.4), level(1, 0.2)]
    assert path_of("r", "sap", levels, None, 1.0, 2.0).steps[0].index == 0.2
    with pytest.raises(ValueError, match=r"no PQ index at \(0.3, None\), only at \(0.5, 1.0\), \(1.0, 2.0\)"):
        path_of("r", "sap", levels, None, 0.3)
    with pytest.raises(ValueError, match="no level with a PQ index yet"):
        path_of("r", "sap", [], None)


# -- the command -----------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> str:
    save_file(state(), tmp_path / "m.safetensors")
    return str(tmp_path / "m.safetensors")


def test_command(file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    where = tmp_path / "page.html", tmp_path / "numbers.csv"
    assert main([file, "--html", str(where[0]), "--csv", str(where[1]), "--p", "0.5", "1", "--q", "1", "2"]) == 0
    said = capsys.readouterr()
    assert "3 tensors, 1,800 weights, 0 % of them zero" in " ".join(said.out.split())
    assert said.out.index("l2.weight") < said.out.index("l0.weight")
    assert said.err == ""
    read(where[0].read_text())
    assert where[1].read_text().startswith("tensor,kind")


def test_command_json(file: str, capsys: pytest.CaptureFixture[str]):
    assert main([file, "--json", "--eta", "0"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["whole"]["count"] == 1800
    assert found["etas"] == [0.0]


def test_command_neurons(file: str, capsys: pytest.CaptureFixture[str]):
    main([file, "--neurons"])
    assert "l0.weight[19]" in capsys.readouterr().out


def test_command_takes_a_factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "nets_for_analyze.py").write_text("from torch import nn\ndef build():\n    return nn.Linear(5, 4)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert main(["nets_for_analyze:build"]) == 0
    assert "1 tensor, 20 weights, 0 % of them zero" in " ".join(capsys.readouterr().out.split())


def test_command_fits_a_terminal(file: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(Path(file).parent)
    for more in ([], ["--neurons"], ["--p", "0.5", "1", "--q", "1", "2", "--eta", "0", "0.01", "0.1", "--all"]):
        assert main(["m.safetensors", *more]) == 0
        assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_command_without_anything_to_analyse(tmp_path: Path):
    some = {"fc.bias": torch.ones(3), "bn.running_mean": torch.ones(3), "wte.weight": torch.ones(4, 3)}
    for name, x in some.items():
        save_file({name: x}, tmp_path / "m.safetensors")
        with pytest.raises(CheckpointError, match=f"none of its tensors is a weight: {name}"):
            main([str(tmp_path / "m.safetensors")])
        assert main([str(tmp_path / "m.safetensors"), "--json"]) == 0


def test_files_of_a_run_that_are_no_network(tmp_path: Path):
    from sparsight import execute
    from sparsight.recipes import sap

    execute(sap(levels=1, epochs=1, batch_size=256, control=False), data="digits", out=tmp_path / "run", threads=1)
    for path in sorted((tmp_path / "run").rglob("masks.safetensors")):
        with pytest.raises(CheckpointError, match=r"masks of a run.*analyse .*model.safetensors instead"):
            main([str(path)])
        assert main([str(path.with_name("model.safetensors"))]) == 0
    assert path == tmp_path / "run" / "masks.safetensors"
    path.with_name("model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="analyse the run folder instead"):
        analyze(path)


@pytest.mark.parametrize("facts", ["", "[]", "{", '"masks"', '{"kind": ["masks"]}', '{"kind": "model"}'])
def test_the_metadata_of_others_are_left_alone(facts: str, tmp_path: Path):
    save_file(state(), tmp_path / "m.safetensors", {"facts": facts, "format": "pt"})
    assert len(analyze(tmp_path / "m.safetensors").tensors) == 3


def test_command_refusals(file: str, tmp_path: Path):
    with pytest.raises(NotFound, match="does not exist"):
        main([str(tmp_path / "nothing.pt")])
    with pytest.raises(Misuse, match="p=2.0, q=1.0"):
        main([file, "--p", "2"])
    with pytest.raises(Misuse, match="matches no tensor"):
        main([file, "--include", "nope*"])
    with pytest.raises(Misuse, match="unknown option '--etaa'; did you mean"):
        main([file, "--etaa", "1"])
    bad = tmp_path / "bad.pt"
    torch.save(nn.Linear(2, 2), bad)
    with pytest.raises(CheckpointError, match="needs code"):
        main([str(bad)])
