"""A ledger in words: a sentence on what pruning gained, tables, rows of numbers, and a section of a page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sparsight.checkpoint.packed.head import FORMAT
from sparsight.deploy.ledger.records import CODE, REQUEST, Latency, Ledger
from sparsight.numerics import format as words
from sparsight.records.record import to_json
from sparsight.report.pages import Section, Table
from sparsight.report.table import grid, wrapped

_DOES = "sparsight ledger --measure does"
_RUNTIMES = {
    "sparsight": "Sparsight's runtime", "torch": "eager PyTorch", "torch-bf16": "eager PyTorch in bf16",
    "torch-csr": "PyTorch with CSR weights", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO",
    "openvino-bf16": "OpenVINO in bf16",
}  # fmt: skip
_COLUMNS = {  # field of a ledger: its name and unit
    "parameters": ("parameters", ""),
    "zeros": ("of these 0", ""),
    "prunable": ("in prunable tensors", ""),
    "alive": ("of these alive, not 0", ""),
    "dense_bytes": ("bytes dense", "bytes"),
    "file_bytes": ("bytes in this file", "bytes"),
    "packed_bytes": ("bytes packed", "bytes"),
    "floor_bytes": ("bytes at the entropy floor", "bytes"),
    "dense_macs": ("dense MACs", "MACs"),
    "effective_macs": ("effective MACs", "MACs"),
}


def sentence(found: Ledger) -> str:
    """What pruning gained, in one sentence: only what was counted or measured, and what was not."""
    parts = [_zeros(found), _packed(found), *_speed(found)]
    text = "; ".join(part for part in parts if part)
    return f"{text[0].upper()}{text[1:]}."


def _zeros(found: Ledger) -> str:
    counted = found.counted
    total, zeros, which = counted.parameters, counted.zeros, "weights"
    if counted.prunable is not None and counted.alive is not None:
        total, zeros, which = counted.prunable, counted.prunable - counted.alive, "prunable weights"
    if not zeros:
        where = "" if found.level is None else f"this is level {found.level}, which is not pruned: "
        return f"{where}none of the {which} is zero"
    return f"{words.percent(zeros / total)} of the {which} {'is' if zeros == 1 else 'are'} zero"


def _packed(found: Ledger) -> str:
    counted = found.counted
    if counted.packed_bytes is None:
        return f"it was not packed: {found.missing.get('packed_bytes', 'not asked for')}"
    minus, more = counted.minus_zeros, ""
    if minus and minus >= counted.parameters / 1000:
        more = f", and stores {words.plural(minus, 'zero')} with a minus sign (add 0.0 to remove it)"
    gain = f"{words.compression(counted.packed_bytes, counted.dense_bytes)} smaller"
    if counted.packed_bytes >= 0.995 * counted.dense_bytes:
        return f"packed it is no smaller{more}"
    if found.format == FORMAT:
        return f"this file is {gain} than dense{more}"
    return f"{'its' if counted.file_bytes is None else 'this'} file is {gain} packed{more}"


def _speed(found: Ledger) -> Iterator[str]:
    measured = found.measured
    if measured is None or not measured.latency:
        why = found.missing.get("latency", REQUEST)
        how = {REQUEST: f" ({_DOES})", CODE: f" ({_DOES}, with --model and --shape)"}.get(why, f": {why}")
        yield f"its speed was not measured{how}"
        return
    places = dict.fromkeys((one.batch, one.threads) for one in measured.latency)
    for batch, threads in places:
        here = [one for one in measured.latency if (one.batch, one.threads) == (batch, threads)]
        on = f" on {words.plural(threads, 'thread')}" if len({one.threads for one in measured.latency}) > 1 else ""
        yield _at(here, f"at batch {batch}{on} on this machine")


def _at(here: Sequence[Latency], where: str) -> str:
    """The runtimes in which it is faster and those in which it is not, at one batch and number of threads."""
    faster, others = ([one for one in here if one.faster is kind] for kind in (True, False))
    slow = _either(_RUNTIMES.get(one.runtime, one.runtime) for one in others)
    if not faster:
        return f"it is no faster in {slow} {where}"
    fast = " and ".join(f"{one.ratio:.1f}× faster in {_beside(one)}" for one in faster)
    return f"it is {fast} {where}{f' and no faster in {slow}' if slow else ''}"


def _beside(one: Latency) -> str:
    name = _RUNTIMES.get(one.runtime, one.runtime)
    return name if one.dense_in == one.runtime else f"{name} than dense in {_RUNTIMES.get(one.dense_in, one.dense_in)}"


def _either(names: Iterable[str]) -> str:
    *first, last = [*names] or [""]
    return f"{', '.join(first)} or {last}" if first else last


# -- tables --------------------------------------------------------------------------------------------------------


def text(found: Ledger) -> str:
    """The whole ledger in at most 80 columns: what was counted, measured and left out, then the sentence."""
    cells = [(label, value, how.partition(":")[0]) for label, value, how in _cells(found)]
    lines = [*wrapped(f"{found.source} ({found.format})"), "", *grid(("column", "value", "how"), cells, (0, 2))]
    if found.measured is not None:
        machine, rounds = found.measured.machine.get("processor", "an unknown machine"), found.measured.rounds
        about = f"Measured on {machine}: wall time of a call over {words.plural(rounds, 'round')}; "
        lines += ["", *wrapped(f"{about}spread lies between the quartiles."), ""]
        lines += grid(_HEADINGS, [row for one in found.measured.latency for row in _times(one)], (0, 1))
        dense = dict.fromkeys((x.runtime, x.dense_in) for x in found.measured.latency if x.dense_in != x.runtime)
        lines += wrapped(*(f"Dense beside {a} is {b}, the fastest way measured here." for a, b in dense))
    why: dict[str, list[str]] = {}
    for name, text in found.missing.items():
        why.setdefault(text, []).append(_COLUMNS.get(name, (name, ""))[0])
    left = [f"Missing: {', '.join(names)}: {text}." for text, names in why.items()]
    lines += ["", *wrapped(*left)] if left else []
    return "\n".join([*lines, "", *wrapped(sentence(found))])


def _cells(found: Ledger) -> list[tuple[str, str, str]]:
    counted = found.counted
    wholes = {"zeros": counted.parameters, "alive": counted.prunable, "effective_macs": counted.dense_macs}
    rows = []
    for name, (label, unit) in _COLUMNS.items():
        value = getattr(counted, name)
        if value is None:
            rows.append((label, words.NONE, f"not counted: {found.missing.get(name, '')}"))
            continue
        shown = f"{value:,}"
        if whole := wholes.get(name):
            shown += f" ({words.percent(value / whole)})"
        if unit == "bytes" and name != "dense_bytes" and value:
            shown += f" ({words.compression(value, counted.dense_bytes)})"
        rows.append((label, shown, "counted"))
    for one in found.measured.memory if found.measured else ():
        dense = f" ({words.bytes_of(one.dense)} dense)" if one.dense else ""
        label = f"peak memory, {one.runtime}, batch {one.batch}"
        rows.append((label, f"{words.bytes_of(one.sparse)}{dense}", "measured"))
    return rows


_HEADINGS = ("runtime", "network", "batch", "threads", "median ms", "least ms", "spread ms", "times as fast")


def _times(one: Latency) -> Iterator[list[str]]:
    """The sparse network's row, then the dense network's."""
    where = [str(one.batch), str(one.threads)]
    both = (one.runtime, "sparse", one.sparse, f"{one.ratio:.2f}"), (one.dense_in, "dense", one.dense, "")
    for runtime, side, times, ratio in both:
        seconds = (times.median, times.minimum, times.spread)
        yield [runtime, side, *where, *(f"{1e3 * value:.3g}" for value in seconds), ratio]


# -- numbers, and a page ------------------------------------------------------------------------------------------


def document(found: Ledger) -> dict[str, Any]:
    """The record as JSON values, with the sentence."""
    return {**to_json(found), "sentence": sentence(found)}


def rows(found: Ledger) -> list[dict[str, Any]]:
    """A row for each number, with its unit and how it was found; for missing numbers, the reason."""
    empty = {"column": "", "value": None, "unit": "", "how": "counted", "runtime": "", "batch": None, "threads": None}
    made = []
    for name, (_, unit) in _COLUMNS.items():
        value = getattr(found.counted, name)
        how = "counted" if value is not None else f"not counted: {found.missing.get(name, '')}"
        made.append({**empty, "column": name, "value": value, "unit": unit, "how": how})
    if found.measured is None:
        return made
    for one in found.measured.latency:
        where = {"how": "measured", "runtime": one.runtime, "batch": one.batch, "threads": one.threads}
        for side, times in (("sparse", one.sparse), ("dense", one.dense)):
            for what, seconds in to_json(times).items():
                made.append({**empty, **where, "column": f"{side} {what}", "value": seconds, "unit": "s"})
    for one in found.measured.memory:
        where = {"how": "measured", "runtime": one.runtime, "batch": one.batch, "unit": "bytes"}
        sides = ((f"{side} peak memory", getattr(one, side)) for side in ("sparse", "dense"))
        made += [{**empty, **where, "column": column, "value": value} for column, value in sides]
    return made


def section(found: Ledger | None) -> Section | None:
    """The section of a report: the sentence and the table; None without a ledger."""
    if found is None:
        return None
    rows = Table("What is real", ("column", "value", "how"), _cells(found), words=(0, 2))
    return Section("ledger", "What is real", sentence(found), [rows])
