"""Corruptions against SciPy and by hand; the same at every call."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from sparsight import Data, Split
from sparsight.compare.evaluation import CORRUPTIONS, corrupt
from sparsight.compare.evaluation import corruptions as made
from sparsight.compare.evaluation.networks import images_of

X = torch.rand(6, 2, 28, 28, generator=torch.Generator().manual_seed(0))
DRAW = torch.Generator().manual_seed(3)


def test_there_are_fourteen_at_five_severities():
    assert len(CORRUPTIONS) == 14
    assert {len(each.amounts) for each in CORRUPTIONS.values()} == {5}


@pytest.mark.parametrize("name", list(CORRUPTIONS))
def test_each_changes_images_more_and_more_and_always_alike(name):
    state, before = torch.get_rng_state(), X.clone()
    once, again = (corrupt(X, name, 3) for _ in range(2))
    assert torch.equal(once, again)
    assert torch.equal(X, before)
    assert torch.equal(state, torch.get_rng_state())
    assert once.shape == X.shape
    assert ((once >= 0) & (once <= 1)).all()
    gap = [float((corrupt(X, name, severity) - X).square().mean()) for severity in (1, 5)]
    assert 0 < gap[0] < gap[1]


@pytest.mark.parametrize("name", ["gaussian_noise", "rotation", "motion_blur"])
def test_what_is_drawn_belongs_to_the_place_of_an_image(name):
    many = torch.rand(520, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    whole = corrupt(many, name, 2)
    assert torch.equal(whole[:500], corrupt(many[:500], name, 2))
    assert not torch.equal(whole[500:], corrupt(many[500:], name, 2))  # another place, another draw


def test_noise_has_its_moments():
    grey = torch.full((40, 1, 50, 50), 0.5)
    for name, deviation in (("gaussian_noise", 0.08), ("speckle_noise", 0.35 * 0.5), ("shot_noise", math.sqrt(0.005))):
        change = CORRUPTIONS[name]
        found = change.change(grey, change.amounts[2], DRAW) - 0.5
        assert float(found.mean()) == pytest.approx(0, abs=4 * deviation / math.sqrt(100_000))
        assert float(found.std()) == pytest.approx(deviation, rel=0.02)
    found = corrupt(grey, "impulse_noise", 5)
    for value in (0.0, 1.0):
        assert float((found == value).float().mean()) == pytest.approx(0.035, abs=4 * math.sqrt(0.035 / 100_000))


@pytest.mark.parametrize("severity", [1, 3, 5])
def test_gaussian_blur_is_scipys(severity):
    deviation = CORRUPTIONS["gaussian_blur"].amounts[severity - 1]
    reach = max(1, math.ceil(4 * deviation))
    wanted = ndimage.gaussian_filter(X.double().numpy(), (0, 0, deviation, deviation), mode="nearest", radius=reach)
    assert np.allclose(corrupt(X, "gaussian_blur", severity), wanted, atol=1e-5)


@pytest.mark.parametrize("radius", [0.75, 2.0])
def test_defocus_is_a_disk(radius):
    reach, fine = math.ceil(radius + 0.5), 9
    disk = np.zeros((2 * reach + 1, 2 * reach + 1))
    for i, j in np.ndindex(disk.shape):
        for a, b in np.ndindex(fine, fine):
            y, x = i - reach + (a + 0.5) / fine - 0.5, j - reach + (b + 0.5) / fine - 0.5
            disk[i, j] += math.hypot(x, y) <= radius
    wanted = ndimage.convolve(X[0, 0].double().numpy(), disk / disk.sum(), mode="nearest")
    assert np.allclose(made.defocus_blur(X, radius, DRAW)[0, 0], wanted, atol=1e-5)


def test_motion_blur_keeps_what_is_even_and_smears_a_point():
    even = torch.full((3, 1, 28, 28), 0.3)
    assert torch.allclose(corrupt(even, "motion_blur", 5), even, atol=1e-6)
    point = torch.zeros(1, 1, 29, 29)
    point[..., 14, 14] = 1
    found = corrupt(point, "motion_blur", 3)[0, 0]
    rows, columns = (found > 1e-6).nonzero().T
    assert float(found.sum()) == pytest.approx(1, abs=1e-4)
    assert int(columns.max() - columns.min()) >= int(rows.max() - rows.min())  # within 45 degrees of a row


def test_values_by_hand():
    x = torch.tensor([0.0, 0.2, 0.4, 1.0]).reshape(1, 1, 2, 2)
    assert corrupt(x, "contrast", 2).flatten().tolist() == pytest.approx([0.2, 0.3, 0.4, 0.7])
    assert corrupt(x, "brightness", 4).flatten().tolist() == pytest.approx([0.2, 0.4, 0.6, 1.0])
    assert corrupt(x, "quantize", 4).flatten().tolist() == pytest.approx([0, 1 / 3, 1 / 3, 1])
    assert corrupt(x, "quantize", 5).flatten().tolist() == [0, 0, 0, 1]


def test_pixelate_takes_means():
    x = torch.arange(400.0).reshape(1, 1, 20, 20) / 400
    found = made.pixelate(x, 0.5, DRAW)
    wanted = x.reshape(10, 2, 10, 2).mean((1, 3)).repeat_interleave(2, 0).repeat_interleave(2, 1)
    assert torch.allclose(found[0, 0], wanted)


def test_translation_moves_by_whole_pixels_and_leaves_black():
    found = corrupt(X, "translation", 3)
    for image, before in zip(found, X, strict=True):
        moved = [np.roll(before.numpy(), (a, b), (1, 2)) for a in (-3, 3) for b in (-3, 3)]
        for each, (a, b) in zip(moved, [(a, b) for a in (-3, 3) for b in (-3, 3)], strict=True):
            each[:, : max(a, 0)] = 0
            each[:, 28 + min(a, 0) :] = 0
            each[:, :, : max(b, 0)] = 0
            each[:, :, 28 + min(b, 0) :] = 0
        assert sum(np.allclose(image, each, atol=1e-5) for each in moved) == 1
    assert len({tuple(np.round(image.mean((0, 2)).tolist(), 3)) for image in found}) > 1


def moved(image: torch.Tensor, matrix: np.ndarray) -> np.ndarray:
    """SciPy's image with, at v from the centre, what lies at matrix v; zero outside."""
    centre = (np.array(image.shape) - 1) / 2
    offset = centre - matrix @ centre
    return ndimage.affine_transform(image.numpy(), matrix, offset, order=1, mode="grid-constant")


@pytest.mark.parametrize("shape", [(28, 28), (20, 36)])
def test_rotation_and_scaling_are_scipys(shape):
    x = torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(5))
    found = made.rotation(x, 0.4, DRAW)[0, 0].numpy()
    turns = [np.array([[math.cos(a), math.sin(a)], [-math.sin(a), math.cos(a)]]) for a in (0.4, -0.4)]
    assert sum(np.allclose(found, moved(x[0, 0], turn), atol=1e-4) for turn in turns) == 1
    assert np.allclose(made.scaling(x, 0.5, DRAW)[0, 0], moved(x[0, 0], np.eye(2) * 2), atol=1e-4)


def test_what_is_refused():
    for name, severity, match in (
        ("fog", 1, "corruption must be one of .*, got 'fog'"),
        ("contrast", 6, "severity must be one of .*, got 6"),
    ):
        with pytest.raises(ValueError, match=match):
            corrupt(X, name, severity)
    for wrong in (X[0], (X * 255).byte()):
        with pytest.raises(ValueError, match=r"images \[N, C, H, W\] of floats"):
            corrupt(wrong, "contrast", 1)
    assert corrupt(X[:0], "contrast", 1).shape == (0, 2, 28, 28)


# -- which images --------------------------------------------------------------------------------------------------


def data(x: torch.Tensor, y: torch.Tensor, **facts) -> Data:
    split = Split(x, y)
    return Data(name="own", train=split, validation=split, test=split, facts=facts)


def test_images_come_back_to_pixels_and_keep_the_shares_of_classes():
    y = torch.tensor([0] * 60 + [1] * 30)
    raw = torch.rand(90, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    normal = {"mean": [0.3, 0.1], "std": [0.5, 2.0]}
    mean, deviation = (torch.tensor(normal[key]).reshape(1, 2, 1, 1) for key in ("mean", "std"))
    found = images_of(data((raw - mean) / deviation, y, normalisation=normal), 30)
    assert found.labels.tolist() == [0] * 20 + [1] * 10
    chosen = [(raw - image).abs().flatten(1).amax(1).argmin().item() for image in found.pixels]
    assert torch.allclose(raw[chosen], found.pixels, atol=1e-6)
    assert len(images_of(data(raw, y), 90).labels) == 90


def test_images_that_cannot_be_corrupted_are_refused():
    x, y = torch.randn(10, 1, 4, 4), torch.zeros(10, dtype=torch.long)
    with pytest.raises(ValueError, match="the normalisation of 'own' is unknown"):
        images_of(data(x, y), 5)
    for wrong in (data(x[:, 0], y), data(x, y.float()), data(x, x)):
        with pytest.raises(ValueError, match="got other data in 'own': leave out the metric corruptions"):
            images_of(wrong, 5)
