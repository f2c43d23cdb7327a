"""`sparsight certify`: the error bound of a pruned network, and its measured error."""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from sparsight.cli.certify_inputs import Pruned, of_checkpoint, of_run
from sparsight.cli.errors import Misuse, checked, refusing
from sparsight.cli.network_options import CertifyOptions
from sparsight.cli.output import give
from sparsight.compare.verdict.verdict import report
from sparsight.model.masks import all_kept
from sparsight.numerics.checks import check_whole
from sparsight.numerics.format import percent
from sparsight.numerics.seeds import derive, seeded
from sparsight.pruning.sipp.bounds import most_points
from sparsight.pruning.sipp.certificate import Certificate, LayerCertificate, certify
from sparsight.pruning.sipp.certificate.records import nothing_certified
from sparsight.pruning.sipp.score import SiPP, first_points
from sparsight.records.folder import RunFolder
from sparsight.records.record import LevelRecord
from sparsight.records.rows import Row, store_rows, stored_rows
from sparsight.report.escape import printable
from sparsight.report.table import grid
from sparsight.train.batches import batches
from sparsight.types import Batch, Split

AT_ONCE = 250
"""Inputs in a batch."""


def main(asked: CertifyOptions) -> int:
    _check(asked)
    if os.path.exists(asked.path / "run.json"):
        if asked.dense is not None:
            raise Misuse(f"--dense is for checkpoints: the run {asked.path} holds its unpruned weights")
        pruned = of_run(asked.path, asked.level, asked.model, asked.data, asked.as_pruned)
    else:
        if asked.level is not None or asked.as_pruned or asked.store:
            raise Misuse(f"--level, --as-pruned and --store are for runs: {asked.path} is a checkpoint")
        pruned = of_checkpoint(asked.path, asked.dense, asked.model, asked.data)
    certificate = _certificate(asked, pruned)
    if asked.store and pruned.record is not None:
        _store(asked, pruned.record, certificate)
    about = {"source": pruned.source, "unpruned": pruned.unpruned, "data": pruned.data.name}
    about |= {"as_pruned": asked.as_pruned, "notes": pruned.notes, "certificate": certificate}
    return give(asked, lambda: _text(pruned, certificate), lambda: about)


def _store(asked: CertifyOptions, record: LevelRecord, certificate: Certificate) -> None:
    """Two rows of the level: the share of held-out inputs whose outputs have a bound below 1, and delta."""
    network, when = certificate.network, "as pruned" if asked.as_pruned else ""
    found = {"certified": network.within / network.inputs, "certificate_delta": certificate.delta}
    of = (record.level, record.role, record.id)
    with RunFolder.open(asked.path, write=True) as folder:
        others = [row for row in stored_rows(folder) if row.id != record.id or row.metric not in found]
        made = [Row(*of, name, when, None, value, n=network.inputs) for name, value in found.items()]
        store_rows(folder, [*others, *made])
        report(folder)


def _check(asked: CertifyOptions) -> None:
    if not 0 < asked.delta < 1:
        raise Misuse(f"--delta must be greater than 0 and less than 1, got {asked.delta:g}")
    if not 1 <= asked.constant < float("inf"):
        raise Misuse(f"--constant must be finite and at least 1, got {asked.constant:g}")
    checked(check_whole, 1, points=asked.points, held_out=asked.held_out)


# -- the certificate -------------------------------------------------------------------------------------------


def _certificate(asked: CertifyOptions, pruned: Pruned) -> Certificate:
    masks = {**all_kept(pruned.before), **pruned.masks}
    whole = {name: torch.ones_like(mask) for name, mask in masks.items()}
    calibration = _calibration(pruned, asked.points or most_points(asked.delta, asked.constant))
    with refusing(TypeError, form="cannot certify this network: {}"):
        scores = SiPP("max", asked.delta, asked.constant, asked.points)(pruned.before, whole, calibration)
        with seeded(0):
            held = list(first_points(batches(pruned.data.validation, AT_ONCE), asked.held_out, AT_ONCE))
        return certify(
            pruned.before, masks, scores, held, delta=asked.delta, constant=asked.constant, bound=asked.bound
        )


def _calibration(pruned: Pruned, wanted: int) -> list[Batch]:
    """Training inputs, shuffled like those that a run scores on."""
    train, seed = pruned.data.train, derive(pruned.seed, "score")
    if isinstance(train, Split):
        train = replace(train, augment=None)
    with seeded(seed):
        return list(
            first_points(batches(train, AT_ONCE, generator=torch.Generator().manual_seed(seed)), wanted, AT_ONCE)
        )


# -- telling ---------------------------------------------------------------------------------------------------


def _text(pruned: Pruned, certificate: Certificate) -> str:
    lines = [f"{pruned.source}, a pruning of {pruned.unpruned}, on {pruned.data.name}", *pruned.notes, ""]
    if nothing_certified(certificate):
        lines += _nothing(certificate)
    else:
        sizes = {name: mask.numel() for name, mask in pruned.masks.items()}
        lines += [*_table(certificate.layers, sizes), "", *certificate.says, certificate.network.says]
    lines.append(
        f"delta = {certificate.delta:.3g} over {certificate.points} points, C = {certificate.constant:g}, "
        f"{certificate.bound}"
    )
    return "\n".join(map(printable, lines))


def _nothing(certificate: Certificate) -> list[str]:
    found = certificate.network
    largest = max(layer.measured for layer in certificate.layers)
    return [
        certificate.says[0],
        "Nothing is certified: no pruned neuron or output has a bound below 1, the error of removing every weight. "
        "--json lists every neuron.",
        f"Measured on {found.inputs:,} held-out inputs: the largest relative error of an output is "
        f"{found.measured:.3g} (mean {found.mean:.3g}), of a neuron's sum {largest:.3g}.",
    ]


def _table(layers: Sequence[LayerCertificate], sizes: Mapping[str, int]) -> list[str]:
    """A line per layer: its density, the bounds of its neurons, the measured errors."""
    heads = ["density", "vacuous neurons", "median bound", "largest bound", "mean error", "largest error"]
    heads += ["errors outside", "layer"]
    rows = []
    for layer in layers:
        bounds = [neuron.bound for neuron in layer.neurons]
        numbers = (statistics.median(bounds), layer.bound, layer.mean, layer.measured)
        counted = percent(layer.kept / sizes.get(layer.name, layer.total)), f"{layer.vacuous:,} of {len(bounds):,}"
        rows.append([*counted, *(f"{x:.3g}" for x in numbers), f"{layer.violations:,}", layer.name])
    return grid(heads, rows, {7}, 8, ruled=False)
