"""Samples on which networks differ: which they are, in which order, and their images."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from pages import needs_browser, tab
from PIL import Image

from sparsight import execute
from sparsight.compare import evaluate, predictions
from sparsight.compare.flips import _png, flips
from sparsight.compare.gather import gather
from sparsight.compare.page import page
from sparsight.recipes import lottery


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "lottery"
    recipe = lottery(rate=0.8, levels=2, epochs=1, batch_size=64, control=False)
    execute(recipe, model="linear", data="digits", out=out, threads=1)
    return out


def test_nothing_without_answers(run):
    assert flips(gather([run]).networks) is None
    assert flips(()) is None


def test_they_are_where_answers_differ(run):
    evaluate(run, ["accuracy"])
    networks = gather([run]).networks
    found, stored = flips(networks), predictions(run)
    answers = np.stack([stored[n.id].numpy() for n in networks])
    assert sorted(found["samples"]) == np.flatnonzero((answers != answers[0]).any(0)).tolist()
    assert found["answers"] == answers[:, found["samples"]].tolist()
    assert found["labels"] == stored["labels"][found["samples"]].tolist()
    apart = np.abs((answers == stored["labels"].numpy()).mean(0) - 0.5)[found["samples"]]
    assert (np.diff(apart) >= 0).all(), "those that divide the networks most come first"
    sheet = found["sheet"]
    assert (sheet["width"], sheet["height"], sheet["count"]) == (8, 8, min(240, len(found["samples"])))
    picture = Image.open(io.BytesIO(base64.b64decode(sheet["url"].partition(",")[2])))
    assert picture.size == (8 * 16, 8 * -(-sheet["count"] // 16))
    assert flips(gather([run]).networks[:1]) is None


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_is_read_back(channels):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, channels), dtype=np.uint8)
    back = np.asarray(Image.open(io.BytesIO(_png(pixels)))).reshape(pixels.shape)
    assert np.array_equal(back, pixels)
    assert struct.unpack(">II", _png(pixels)[16:24]) == (7, 5)
    assert zlib.crc32(b"IEND") == 0xAE426082


@pytest.mark.browser
@needs_browser
def test_they_are_shown_beside_each_other(run, tmp_path):
    evaluate(run, ["accuracy"])
    found = gather([run])
    last = len(found.networks) - 1
    (tmp_path / "page.html").write_text(page(found))
    told = flips(found.networks)
    differ = sum(a != b for a, b in zip(told["answers"][0], told["answers"][last], strict=True))
    with tab(tmp_path) as shown:
        shown.open(tmp_path / "page.html", place=f"#picked=0,{last}")
        shown.until("document.querySelectorAll('.flips li').length > 0")
        assert shown.run("document.querySelectorAll('.flips li').length") == min(60, differ)
        assert shown.run("document.querySelector('#details summary').textContent").startswith(
            f"Flipped: {differ} of the "
        )
        assert shown.run("getComputedStyle(document.querySelector('.look')).backgroundImage").startswith(
            'url("data:image'
        )
        assert shown.console == []
        assert shown.asked == []
