"""The networks of a run and its data, loaded when first needed."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor, nn

from sparsight.compare.evaluation.corruptions import corrupt
from sparsight.compare.evaluation.metrics import Outputs, outputs_of
from sparsight.deploy.network_of_run import names_of
from sparsight.numerics.stratified import stratified
from sparsight.records.folder import RunFolder
from sparsight.records.identity import fingerprint
from sparsight.records.record import LevelRecord, to_json
from sparsight.train.batches import to_device
from sparsight.train.parallel import runtime
from sparsight.types import Batch, Data, Split
from sparsight.zoo import data as readers
from sparsight.zoo import networks as zoo


@dataclass(frozen=True, eq=False)
class Networks:
    """A run's networks and its data. `model` and `data` are needed unless they come from the zoo."""

    folder: RunFolder
    model: str | nn.Module | None = None
    data: str | Data | None = None

    def outputs(self, record: LevelRecord, split: Split | Iterable[Batch] | None = None) -> Outputs:
        """A network's outputs for a split, by default the test split."""
        self.module.load_state_dict(self.folder.weights(record))
        try:
            return outputs_of(self.module, self._test if split is None else split, self._runtime)
        except ValueError as error:
            more = "structure, size and latency need no classes: choose among these metrics for such a network"
            raise ValueError(f"cannot evaluate {self.folder.path} by its answers: {error}; {more}") from error

    def corrupted(self, name: str, severity: int, samples: int) -> Split:
        """`samples` test images with a corruption; "none" leaves them unchanged."""
        if samples not in self._images:
            self._images[samples] = images_of(self._source, samples)
        images = self._images[samples]
        x = images.pixels if name == "none" else corrupt(images.pixels, name, severity)
        split = Split((x - images.mean) / images.deviation, images.labels)
        return cast(Split, to_device(split, self._runtime.device))

    @cached_property
    def _runtime(self) -> Any:
        return runtime("auto", "no")

    @cached_property
    def _source(self) -> Data:
        """The data of the run. Raises: ValueError for other splits than the run's, or without a test split."""
        given = self.data if isinstance(self.data, Data) else readers.load(self._names[1])
        found = readers.prepared(given)
        if found.test is None:
            raise ValueError(f"cannot evaluate {self.folder.path}: its data has no test split")
        stored = self.folder.record.data.get("splits", {})
        here = to_json(fingerprint(replace(found, train=found.test))["splits"])
        for name in ("validation", "test"):
            if stored.get(name) not in (None, here[name]):
                raise ValueError(
                    f"the data of {self.folder.path} must be the run's own: its {name} split was "
                    f"{_short(stored[name])}, got {found.name!r} with {_short(here[name])}"
                )
        return found

    @cached_property
    def _names(self) -> tuple[str, str]:
        model, data = (x if x is None or isinstance(x, str) else "given" for x in (self.model, self.data))
        return names_of(self.folder, model, data)

    @cached_property
    def module(self) -> nn.Module:
        """A copy of the network, into which weights are loaded."""
        if isinstance(self.model, nn.Module):
            return copy.deepcopy(self.model).to(self._runtime.device)
        return zoo.build(self._names[0], self._source, self.folder.record.seed).to(self._runtime.device)

    @cached_property
    def validation(self) -> Split | Iterable[Batch]:
        return to_device(self._source.validation, self._runtime.device)

    @property
    def images(self) -> Tensor | None:
        """The test images as the network sees them, [N, C, H, W]; None for other samples, or those not in memory."""
        test = self._source.test
        return test.x if isinstance(test, Split) and test.x.ndim == 4 else None

    @cached_property
    def _test(self) -> Any:
        return to_device(self._source.test, self._runtime.device)  # type: ignore[arg-type]

    @cached_property
    def _images(self) -> dict[int, Images]:
        return {}


@dataclass(frozen=True, eq=False)
class Images:
    """Test images with pixels in [0, 1]; the network sees (pixels - mean) / deviation."""

    pixels: Tensor
    labels: Tensor
    mean: Tensor
    deviation: Tensor


def images_of(data: Data, samples: int) -> Images:
    """`samples` stratified images of the test split, always the same ones; all if there are fewer.

    Raises: ValueError for a test split not in memory or without images and one class each, and for images of unknown
    normalisation: `facts["normalisation"]` holds mean and std.
    """
    split = data.test
    if not isinstance(split, Split) or split.x.dim() != 4 or split.y.dim() != 1 or split.y.is_floating_point():
        raise ValueError(
            f"corruptions need a test split in memory, of images [N, C, H, W] with one class each, got other data in "
            f"{data.name!r}: leave out the metric corruptions"
        )
    known = data.facts.get("normalisation")
    if isinstance(known, Mapping):
        mean, deviation = (torch.tensor(known[key]).float().reshape(1, -1, 1, 1) for key in ("mean", "std"))
    elif split.x.min() >= 0 and split.x.max() <= 1:
        mean, deviation = torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1)
    else:
        raise ValueError(
            f"corruptions change pixels in [0, 1], and the normalisation of {data.name!r} is unknown: state it as "
            "Data(facts={'normalisation': {'mean': ..., 'std': ...}})"
        )
    chosen = slice(None) if samples >= len(split) else stratified(split.y, [samples])[0]
    pixels = (split.x[chosen].float() * deviation + mean).clamp(0, 1)
    return Images(pixels, split.y[chosen], mean, deviation)


def _short(split: Any) -> str:
    return ", ".join(f"{key} {str(value)[:12]}" for key, value in split.items() if key != "augment")
