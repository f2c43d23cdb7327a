"""The public names: about 40 at the top, the others in their rooms, and those of version 0.1 for a while."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import sparsight

TOP = [name for name in sparsight.__all__ if name != "__version__"]

OF_0_1 = (Path(__file__).parent / "data" / "names-0.1.txt").read_text().split()
"""Those whose meaning is the same; `PerLevel` and `Sensitivities` are gone."""

ROOMS_OF_0_1 = {
    "allocate": ["Global", "Uniform", "SAP", "Shrink", "SiPPDet", "FORCE"],
    "certificate": ["certify", "Certificate", "pruning_of"],
    "criticality": ["chi", "edge_of_chaos", "phase_of", "conditioning", "smallest_stable_sigma_b"],
    "data": [
        "batches", "digits", "fashion_mnist", "fingerprint", "load", "mnist", "move", "stratified", "to_device",
        "find_fashion_mnist", "DataNotFound", "Crop", "Flip",
    ],
    "flow": ["probe", "gradient_flow", "information_flow", "Probe"],
    "masks": ["named", "dense", "density", "counts", "check", "verify", "prunable"],
    "pq": ["pq_index", "power_sums", "PowerSums", "group_sums"],
    "propagation": ["silent"],
    "recipe": ["NesterovSGD", "Recipe", "Until", "Level", "Hooks", "SparsestWithin", "classify", "cross_entropy"],
    "score": ["Magnitude", "SNIP", "SiPP", "GraSP"],
    "stop": ["MaskStable", "FixedEpochs", "AllOf", "named_rule", "Context", "Reference"],
    "store": ["RunFolder", "next_folder"],
    "study": ["rows", "summarise", "mean", "paired", "run_study"],
}  # fmt: skip


def fresh(name: str) -> None:
    """Forget that a name has been looked up: an old one warns at its first use."""
    vars(sparsight).pop(name, None)


class TestTop:
    def test_there_are_about_forty_names(self):
        assert 30 <= len(TOP) <= 50
        assert len(set(TOP)) == len(TOP)
        assert dir(sparsight) == sorted(sparsight.__all__)

    @pytest.mark.parametrize("name", TOP)
    def test_each_is_that_of_its_room_without_a_warning(self, name):
        fresh(name)
        value = getattr(sparsight, name)
        room = importlib.import_module(f"sparsight.{sparsight._NEW[name]}")
        assert value is getattr(room, name)
        assert name in getattr(room, "__all__", (name,))
        assert getattr(sparsight, name) is value

    def test_a_room_hides_no_name(self):
        assert not {"types", *(path.name for path in _rooms())} & set(TOP)

    def test_what_is_no_name_is_no_attribute(self):
        for name in ("nonsense", "__wrapped__"):
            with pytest.raises(AttributeError, match=f"no attribute '{name}'"):
                getattr(sparsight, name)
        with pytest.raises(ImportError, match="nonsense"):
            from sparsight import nonsense  # noqa: F401
        with pytest.raises(ModuleNotFoundError, match="sparsight.nonsense"):
            importlib.import_module("sparsight.nonsense")


def _rooms():
    (folder,) = sparsight.__path__
    return [path for path in Path(folder).iterdir() if path.is_dir()]


class TestRooms:
    @pytest.mark.parametrize(
        "room", sorted({*sparsight._HOME, *sparsight._MOVED, "recipes", "report", "zoo", "zoo.networks", "zoo.data"})
    )
    def test_each_lists_its_own(self, room):
        module = importlib.import_module(f"sparsight.{room}")
        if room == "types":
            return
        assert len(module.__all__) == len(set(module.__all__))
        assert all(hasattr(module, name) for name in module.__all__)
        here = {*sparsight._HOME.get(room, ()), *sparsight._MOVED.get(room, ())}
        assert here <= set(module.__all__)


class TestOldNames:
    def test_none_is_lost(self):
        assert set(OF_0_1) <= {*sparsight._NEW, *sparsight._OLD}
        assert not set(sparsight._NEW) & set(sparsight._OLD)

    @pytest.mark.parametrize("name", sorted(sparsight._OLD))
    def test_each_works_and_says_where_it_is(self, name):
        fresh(name)
        room = sparsight._OLD[name]
        with pytest.warns(DeprecationWarning, match=f"^sparsight.{name} is sparsight.{room}.{name} now; .* in version"):
            value = getattr(sparsight, name)
        assert value is getattr(importlib.import_module(f"sparsight.{room}"), name)
        assert name not in sparsight.__all__

    def test_the_warning_is_of_the_line_that_asks(self):
        fresh("MBP")
        with pytest.warns(DeprecationWarning, match="sparsight.pruning.MBP now") as said:
            from sparsight import MBP
        assert [w.filename for w in said] == [__file__]
        from sparsight.pruning import MBP as there

        assert MBP is there

    @pytest.mark.parametrize("room", sorted(ROOMS_OF_0_1))
    def test_a_module_that_moved_is_found_by_import(self, room):
        old = importlib.import_module(f"sparsight.{room}")
        for name in ROOMS_OF_0_1[room]:
            words = (
                rf"^sparsight\.{room}\.{name} is sparsight\.([\w.]+)\.{name} now; the old name goes in version 0\.3$"
            )
            with pytest.warns(DeprecationWarning, match=words) as said:
                value = getattr(old, name)
            place = str(said[0].message).split(" ")[2].rpartition(".")[0]
            assert getattr(importlib.import_module(place), name) is value
            assert said[0].filename == __file__
        with pytest.raises(AttributeError, match=f"module 'sparsight.{room}' has no attribute 'nonsense'"):
            _ = old.nonsense

    def test_all_that_moved_are_tried(self):
        assert sorted(ROOMS_OF_0_1) == sorted(sparsight._ROOMS)

    @pytest.mark.parametrize(
        ("code", "said"),
        [
            ("from sparsight.data import digits; assert len(digits().train)", "sparsight.zoo.data.digits"),
            ("import sparsight.stop; sparsight.stop.MaskStable()", "sparsight.train.stop.MaskStable"),
            ("import sparsight.stop as s; s.MaskStable()", "sparsight.train.stop.MaskStable"),
            ("import sparsight; sparsight.data.digits", "sparsight.zoo.data.digits"),
            ("import sparsight; sparsight.stop.MaskStable()", "sparsight.train.stop.MaskStable"),
            ("from sparsight import stop; stop.MaskStable()", "sparsight.train.stop.MaskStable"),
            ("from sparsight.recipe import NesterovSGD, Recipe, Until", "sparsight.runs.Until"),
            ("from sparsight import MaskStable", "sparsight.train.stop.MaskStable"),
        ],
    )
    def test_in_a_program_of_its_own(self, code, said):
        done = subprocess.run(
            [sys.executable, "-W", "always::DeprecationWarning", "-c", code],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert f"{said} now; the old name goes in version 0.3" in done.stderr


def test_a_name_that_is_gone_says_what_to_write_instead():
    with pytest.raises(AttributeError, match=r"sparsight\.PerLevel is gone .*TrainingPlan"):
        _ = sparsight.PerLevel
    with pytest.raises(AttributeError, match=r"sparsight\.Sensitivities is gone .*Scored"):
        _ = sparsight.Sensitivities
