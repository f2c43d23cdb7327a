"""Matrix-shaped parameters that are not prunable are named, with their share and what would include them."""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, prune

import sparsight
from sparsight import Data, LeftOutWarning, Split, dense, left_out
from sparsight.analysis.page import page
from sparsight.analysis.text import headline, table
from sparsight.cli.entry import main
from sparsight.model.left_out import LeftOut, lines
from sparsight.model.masks import all_kept
from sparsight.pruning import conditioning
from sparsight.recipes import lottery
from sparsight.records.identity import run_id
from sparsight.records.record import RunRecord, from_json, to_json
from sparsight.report import page as report_page
from sparsight.runs import Prunable
from sparsight.zoo import networks as zoo

ROWS = 6


class Conv1D(nn.Module):
    """A linear layer with its weight the other way round, as GPT-2 has it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


class Cubes(nn.Module):
    """Three dimensions, and nothing says that the first one is of experts."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.randn(2, ROWS, ROWS))
        self.down = nn.Parameter(torch.randn(2, ROWS, ROWS))


class Positions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, ROWS))  # a vector, whatever its dimensions
        self.place = nn.Parameter(torch.randn(1, 5, ROWS))


class Attention(nn.Module):
    """Somebody's own, with the names of torch's."""

    def __init__(self, width: int = ROWS) -> None:
        super().__init__()
        self.in_proj_weight = nn.Parameter(torch.randn(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        parts = functional.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, -1)
        return self.out_proj(functional.scaled_dot_product_attention(*parts))


def pruned_by_torch() -> nn.Module:
    layer = nn.Linear(ROWS, ROWS)
    prune.l1_unstructured(layer, "weight", amount=0.5)
    return layer


SQUARE = (ROWS, ROWS)
COMPUTED = "a weight is computed from it, which may not keep its zeros; remove the parametrisation first"

FAMILIES: dict[str, tuple[Callable[[], nn.Module], dict[str, tuple[int, ...]], str]] = {
    # kind: (a module, its matrix-shaped parameters that are not prunable, what is noted)
    "orthogonal": (
        lambda: parametrizations.orthogonal(nn.Linear(ROWS, ROWS)),
        {"parametrizations.weight.original": SQUARE},
        COMPUTED,
    ),
    "old weight norm": (lambda: nn.utils.weight_norm(nn.Linear(ROWS, ROWS)), {"weight_v": SQUARE}, COMPUTED),
    "old spectral norm": (lambda: nn.utils.spectral_norm(nn.Linear(ROWS, ROWS)), {"weight_orig": SQUARE}, COMPUTED),
    "attention": (Attention, {"in_proj_weight": (3 * ROWS, ROWS)}, ""),
    "lstm": (
        lambda: nn.LSTM(ROWS, ROWS, bidirectional=True),
        {f"weight_{part}_l0{end}": (4 * ROWS, ROWS) for end in ("", "_reverse") for part in ("ih", "hh")},
        "",
    ),
    "gru cell": (lambda: nn.GRUCell(ROWS, ROWS), {"weight_ih": (3 * ROWS, ROWS), "weight_hh": (3 * ROWS, ROWS)}, ""),
    "cubes": (Cubes, {"up": (2, *SQUARE), "down": (2, *SQUARE)}, ""),
    "gpt-2": (lambda: Conv1D(ROWS, 2 * ROWS), {"weight": (ROWS, 2 * ROWS)}, ""),
    "bilinear": (lambda: nn.Bilinear(ROWS, ROWS, ROWS), {"weight": (ROWS, ROWS, ROWS)}, ""),
    "embedding": (lambda: nn.Embedding(9, ROWS), {"weight": (9, ROWS)}, ""),
    "bag": (lambda: nn.EmbeddingBag(9, ROWS), {"weight": (9, ROWS)}, ""),
    "positions": (Positions, {"place": (1, 5, ROWS)}, ""),
}


PATTERNS = {"lstm": lambda name: name.split("_l0")[0] + "_l*"}
"""What includes a parameter, by its name, unless its name does."""


def network(kind: str) -> nn.Module:
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore", FutureWarning)  # torch's own, of its older parametrisations
        torch.manual_seed(0)
        return nn.ModuleDict({"part": FAMILIES[kind][0](), "head": nn.Linear(ROWS, 3)})


def shares(model: nn.Module, names: Iterable[str]) -> list[float]:
    parameters = dict(model.named_parameters())
    total = sum(p.numel() for p in parameters.values())
    return [parameters[name].numel() / total for name in names]


@pytest.mark.parametrize("kind", FAMILIES)
class TestFamilies:
    def test_each_is_named_with_its_share_and_what_includes_it(self, kind):
        model, (_, shapes, note) = network(kind), FAMILIES[kind]
        names = [f"part.{name}" for name in shapes]
        expected = [
            LeftOut(name, shape, share, PATTERNS.get(kind, lambda name: name)(name), note)
            for name, shape, share in zip(names, shapes.values(), shares(model, names), strict=True)
        ]
        assert list(left_out(model)) == expected
        with pytest.warns(LeftOutWarning) as said:
            masks = dense(model)
        (one,) = said
        assert not set(names) & set(masks)
        for x in expected:
            if x.include == x.name:
                assert f"\n  {x.name} ({'×'.join(map(str, x.shape))}, {100 * x.share:.1f} %" in str(one.message)
            assert x.note in str(one.message)

    def test_the_pattern_includes_it_and_exclude_ends_the_warning(self, kind):
        model = network(kind)
        left = left_out(model)
        patterns = [x.include for x in left if x.include]
        masks = dense(model, include=patterns)  # a warning would be an error here
        assert {x.name: x.shape for x in left}.items() <= {n: tuple(m.shape) for n, m in masks.items()}.items()
        assert dense(model, exclude=patterns).keys() == all_kept(model).keys()
        assert left_out(model, include=patterns) == left_out(model, exclude=patterns) == ()

    def test_an_analysis_lists_it_and_counts_it(self, kind):
        model = network(kind)
        found, left = sparsight.analyze(model), left_out(model)
        assert found.left_out == left
        listed = {x.name: x.why for x in found.listed}
        assert all(f"; {x.include!r} includes it" in listed[x.name] and x.note in listed[x.name] for x in left)
        tensors = f"{len(left)} matrix-shaped tensor{'s' if len(left) > 1 else ''}"
        share = f"{100 * sum(x.share for x in left):.1f} % of all parameters"
        assert f", without {tensors}, {share}" in headline(found)
        assert f"{tensors}, {share}" in page(found)
        assert all(line in " ".join(table(found).split()) for line in lines(left))
        again = sparsight.analyze(model, include=[x.include for x in left if x.include])
        assert {x.name for x in left} <= {t.name for t in again.tensors}
        assert again.left_out == ()
        assert "without" not in headline(again)


@pytest.mark.parametrize("name", zoo.KNOWN)
def test_the_networks_of_the_zoo_leave_nothing_out(name):
    data = Data(name="t", train=(), validation=(), facts={"input_shape": (1, 16, 16), "classes": 10})
    assert left_out(zoo.build(name, data, 0)) == ()


class TestPatterns:
    def test_layers_that_differ_in_their_number_share_one(self):
        model = nn.ModuleDict({"layers": nn.Sequential(*(Attention(8) for _ in range(12)))})
        assert {x.include for x in left_out(model)} == {"layers.*.in_proj_weight"}
        assert lines(left_out(model)) == [f"layers.*.in_proj_weight (12 of 24×8, {_share(model)})"]
        assert len(dense(model, include="layers.*.in_proj_weight")) == 12 * 2

    @pytest.mark.parametrize(
        ("make", "patterns"),
        [
            (lambda: nn.LSTM(4, 5, 3, bidirectional=True), {"weight_ih_l*": 6, "weight_hh_l*": 6}),
            (lambda: nn.Sequential(nn.GRU(4, 5)), {"*.weight_ih_l*": 1, "*.weight_hh_l*": 1}),
            (
                lambda: nn.ModuleDict({"a": nn.LSTM(4, 5, 2, proj_size=3)}),
                {"a.weight_ih_l*": 2, "a.weight_hh_l*": 2, "a.weight_hr_l*": 2},
            ),
        ],
        ids=["lstm", "gru", "projected"],
    )
    def test_recurrent_layers_have_one_pattern_for_each_kind_of_matrix(self, make, patterns):
        model = make()
        assert {x.include: sum(y.include == x.include for y in left_out(model)) for x in left_out(model)} == patterns
        for pattern, count in patterns.items():
            assert len(all_kept(model, include=pattern)) == count

    def test_none_reaches_what_is_another_s(self):
        """ "0.*.w" would bring 0.1.deep.2.w in as well, which differs in more than a number."""
        model = nn.ModuleDict({"0": nn.ModuleDict({str(i): Cubes() for i in range(2)}), "head": nn.Linear(2, 2)})
        model["0"]["1"].add_module("deep", nn.ModuleDict({"2": nn.Embedding(3, 3)}))
        model["0"]["1"].deep["2"].up = nn.Parameter(torch.randn(2, 2))
        found = {x.name: x.include for x in left_out(model)}
        assert found["0.0.up"] == "0.0.up"
        assert found["0.0.down"] == found["0.1.down"] == "*.*.down"
        for name, pattern in found.items():
            assert name in dense(model, include=pattern, exclude=[n for n, p in found.items() if p != pattern])

    def test_signs_of_patterns_in_names_are_meant_as_they_stand(self):
        model = nn.ModuleDict({"a[b]*": nn.Embedding(3, 3), "ab": nn.Embedding(3, 3), "head": nn.Linear(2, 2)})
        (one, other) = left_out(model)
        assert (one.name, other.name) == ("a[b]*.weight", "ab.weight")
        assert all_kept(model, include=one.include).keys() == {"a[b]*.weight", "head.weight"}

    def test_a_tied_head_is_told_once_under_its_first_name(self):
        model = nn.ModuleDict({"embed": nn.Embedding(9, 4), "head": nn.Linear(4, 9, bias=False), "f": nn.Linear(4, 4)})
        model["head"].weight = model["embed"].weight
        (only,) = left_out(model)
        assert only == LeftOut(
            "embed.weight", (9, 4), 36 / 56, "embed.weight", "output embeddings, tied as 'head.weight'"
        )
        assert list(dense(model, include="head.weight")) == ["embed.weight", "f.weight"]

    def test_what_no_pattern_can_include_is_told_to_be_so(self):
        model = nn.ModuleDict({"head": nn.Linear(4, 4), "codes": nn.ParameterList()})
        model["codes"].append(nn.Parameter(torch.zeros(8, 4, dtype=torch.int8), requires_grad=False))
        model["codes"].append(nn.Parameter(torch.zeros(2, 4, dtype=torch.complex64)))
        first, second = left_out(model)
        assert first == LeftOut("codes.0", (8, 4), 32 / 60, None, "torch.int8 cannot be pruned")
        assert second == LeftOut("codes.1", (2, 4), 8 / 60, None, "torch.complex64 cannot be pruned")
        assert "codes.0 (8×4, 53.3 %; torch.int8 cannot be pruned)" in lines(left_out(model))
        assert left_out(model, exclude="codes.*") == ()

    def test_vectors_and_lazy_norms_are_no_matrices(self):
        class Vectors(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.row, self.column = (nn.Parameter(torch.randn(*shape)) for shape in ((1, 9), (9, 1, 1)))
                self.norm, self.lazy = nn.LayerNorm([4]), nn.LazyBatchNorm1d()
                self.layer = nn.Linear(3, 3)

        assert left_out(Vectors()) == ()

    def test_many_are_cut_after_the_largest(self):
        model = nn.ModuleDict({f"e{chr(97 + i)}": nn.Embedding(i + 2, 4) for i in range(14)})
        said = lines(left_out(model))
        assert said[0].startswith("en.weight (15×4, 12.6 %)")
        assert len(said) == 11
        assert said[-1] == f"4 more ({100 * (2 + 3 + 4 + 5) / sum(range(2, 16)):.1f} %)"

    def test_where_nothing_is_prunable_the_error_names_them(self):
        with pytest.raises(
            ValueError, match=r"Conv1D has no prunable.*not prunable are 1 matrix.*: weight \(4×8, 80.0 %\)"
        ):
            dense(Conv1D(4, 8))
        layer = parametrizations.orthogonal(nn.Linear(4, 4))
        with pytest.raises(ValueError, match=r"no prunable.*original \(4×4, 80.0 %; a weight is computed from it"):
            dense(layer)


def _share(model: nn.Module) -> str:
    return f"{100 * 12 * 24 * 8 / sum(p.numel() for p in model.parameters()):.1f} %"


# -- runs ------------------------------------------------------------------------------------------------------


class Attentive(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = Attention(8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.attention(x.unflatten(1, (2, 8))).mean(1))


def data() -> Data:
    x = torch.randn(40, 16, generator=torch.Generator().manual_seed(0))
    split = Split(x, x[:, :3].argmax(1))
    return Data(name="t", train=split, validation=split, test=split)


SHORT = {"rate": 0.5, "levels": 1, "epochs": 1, "batch_size": 20, "control": False}
SAID = "attention.in_proj_weight (24×8, 61.0 %)"


class TestRuns:
    def test_a_run_says_it_once_and_what_is_included_is_pruned(self):
        recipe = lottery(**SHORT)
        with pytest.warns(LeftOutWarning, match="in_proj_weight") as said:
            results = list(sparsight.run(recipe, Attentive(), data(), device="cpu"))
        assert [w.filename for w in said] == [__file__]
        assert results[-1].record.total == 64 + 24
        wider = dataclasses.replace(recipe, prunable=Prunable(include=("attention.in_proj_weight",)))
        results = list(sparsight.run(wider, Attentive(), data(), device="cpu"))
        assert (results[-1].record.kept, results[-1].record.total) == (140, 280)

    def test_a_run_folder_keeps_it_and_the_report_tells_it(self, tmp_path):
        model = Attentive()
        with pytest.warns(LeftOutWarning) as said:
            outcome = sparsight.execute(lottery(**SHORT), model=model, data=data(), out=tmp_path / "r", device="cpu")
        assert len(said) == 1
        (only,) = outcome.record.left_out or ()
        assert only == LeftOut("attention.in_proj_weight", (24, 8), 192 / 315, "attention.in_proj_weight")
        assert f"Not prunable: 1 matrix-shaped tensor, 61.0 % of all parameters: {SAID}." in outcome.report.read_text()
        again = from_json(RunRecord, json.loads(json.dumps(to_json(outcome.record))))
        assert again == outcome.record

    def test_records_without_it_are_read_and_are_the_same_run(self, tmp_path):
        with pytest.warns(LeftOutWarning):
            outcome = sparsight.execute(lottery(**SHORT), model=Attentive(), data=data(), out=tmp_path, device="cpu")
        old = to_json(outcome.record)
        del old["left_out"]
        record = from_json(RunRecord, old)
        assert record.left_out is None
        assert run_id(record) == run_id(outcome.record)
        assert "Not prunable" not in report_page(record, outcome.levels, outcome.times, outcome.evaluation)

    def test_the_command_line_says_it_at_the_start_and_takes_patterns(self, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        here = f"{__name__}:"
        words = ["run", "lottery", "--model", f"{here}Attentive", "--data", f"{here}data", "--device=cpu"]
        words += ["--levels=1", "--epochs=1", "--batch-size=20", "--no-control"]
        assert main([*words, "--out=one"]) == 0
        said = capsys.readouterr()
        assert said.err == ""
        first = said.out.index("Note: 1 matrix-shaped tensor, 61.0 % of all parameters, is not prunable and stays")
        assert first < said.out.index(f"  {SAID}\n") < said.out.index("level 0: density")
        assert said.out.count("in_proj_weight") == 1
        assert main(["show", "one"]) == 0
        assert f"Not prunable: 1 matrix-shaped tensor, 61.0 % of all parameters: {SAID}.\n" in capsys.readouterr().out
        assert main(["show", "one", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["left_out"][0]["include"] == "attention.in_proj_weight"

        assert main([*words, "--out=two", "--include", "*.in_proj_weight", "--exclude", "head.*"]) == 0
        assert "prunable and stays" not in capsys.readouterr().out
        assert main(["show", "two", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["rows"][0]["total"] == 256
        assert main([*words, "--out=three", "--include", "nothing"]) == 2
        assert (
            "'nothing' matches no parameter: the parameters are 'attention.in_proj_weight'" in capsys.readouterr().err
        )

    def test_one_that_is_resumed_keeps_its_patterns(self, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        words = ["run", "lottery", f"--model={__name__}:Attentive", f"--data={__name__}:data", "--out=r"]
        words += ["--levels=1", "--epochs=1", "--no-control", "--device=cpu", "--include", "*.in_proj_weight"]
        assert main(words) == 0
        again = ["run", "lottery", "--resume", *words[2:5]]
        assert main(again) == 0
        assert "is already finished" in capsys.readouterr().out
        assert main([*again, "--exclude", "head.*"]) == 3
        assert "another run" in capsys.readouterr().err

    def test_a_network_that_torch_cannot_copy_is_refused_in_words(self):
        model = nn.Sequential(pruned_by_torch(), nn.Linear(ROWS, 3))
        with pytest.raises(ValueError, match=r"cannot copy the Sequential to train it.*prune.remove"):
            list(sparsight.run(lottery(**SHORT), model, data(), device="cpu"))


def test_measuring_says_nothing():
    """Only who asks for masks or a run is told; a warning would be an error here."""
    model, batch = Attentive(), (data().train.x, data().train.y)  # type: ignore[union-attr]
    assert all_kept(model).keys() == {"attention.out_proj.weight", "head.weight"}
    assert conditioning(model, [batch]).moments.keys() == all_kept(model).keys()
    assert sparsight.analyze(model).left_out == left_out(model)
