"""Test samples that networks classify differently, with their images."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sparsight.compare.evaluation import predictions
from sparsight.compare.evaluation.networks import Networks
from sparsight.compare.gather import Network
from sparsight.records.folder import RunFolder

RUNS, SAMPLES, IMAGES, ACROSS = 50, 2000, 240, 16
"""At most this many runs are compared, and samples and images put on a page; images per row."""


def flips(networks: Sequence[Network]) -> dict[str, Any] | None:
    """Test samples that networks classify differently, the most divisive first; None without any.

    Needs at most 50 evaluated runs, all on the same samples. "answers" holds each network's predicted classes, or None;
    images come from the zoo's data, if it is on this machine.
    """
    runs = list(dict.fromkeys(n.run for n in networks))
    if len(runs) > RUNS:
        return None
    given = {run: found for run in runs if (found := predictions(run))}
    labels = [found["labels"].numpy() for found in given.values()]
    if not labels or any(not np.array_equal(labels[0], other) for other in labels):
        return None
    known = [given.get(n.run, {}).get(n.id) for n in networks]
    answers = np.stack([x.numpy() for x in known if x is not None]) if any(x is not None for x in known) else None
    if answers is None or len(answers) < 2 or answers.ndim != 2:
        return None
    right = answers == labels[0]
    divided = (answers != answers[0]).any(0)
    order = np.argsort(np.abs(right.mean(0) - 0.5), kind="stable")
    chosen = order[divided[order]][:SAMPLES]
    if not len(chosen):
        return None
    sheet, names = _looks(Path(next(iter(given))), chosen[:IMAGES])
    shown = [None if x is None else x.numpy()[chosen].tolist() for x in known]
    about = {"samples": chosen.tolist(), "labels": labels[0][chosen].tolist(), "names": names, "sheet": sheet}
    return {**about, "answers": shown}


def _looks(run: Path, chosen: np.ndarray) -> tuple[dict[str, Any] | None, list[str]]:
    """The samples on one sheet, and the class names; (None, []) if the data is not here."""
    try:
        with RunFolder.open(run) as folder:
            facts = folder.record.data.get("facts", {})
            images = Networks(folder).images
    except (ValueError, LookupError, OSError):
        return None, []
    names = [str(name) for name in facts.get("class_names", ())]
    if images is None or images.shape[1] not in (1, 3) or max(images.shape[2:]) > 64:
        return None, names
    pixels = images[chosen.tolist()].double().numpy().transpose(0, 2, 3, 1)
    low, high = pixels.min(), pixels.max()
    pixels = np.rint(255 * (pixels - low) / ((high - low) or 1)).astype(np.uint8)
    count, height, width, channels = pixels.shape
    rows = -(-count // ACROSS)
    tiles = np.zeros((rows, ACROSS, height, width, channels), np.uint8)
    tiles.reshape(-1, height, width, channels)[:count] = pixels
    sheet = tiles.swapaxes(1, 2).reshape(rows * height, ACROSS * width, channels)
    url = f"data:image/png;base64,{base64.b64encode(_png(sheet)).decode()}"
    return {"url": url, "width": width, "height": height, "across": ACROSS, "count": count}, names


def _png(pixels: np.ndarray) -> bytes:
    """Pixels [height, width, 1 or 3] of 8 bits as a PNG: a header, one compressed block, an end (RFC 2083)."""
    height, width, channels = pixels.shape
    lines = b"".join(b"\0" + line.tobytes() for line in pixels)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines, 9)) + chunk(b"IEND", b"")
