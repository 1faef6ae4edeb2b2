"""Seams of known section: butt, fillet with its root, undercut; and what is no seam."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from gaugedscan import Measured, Patch, scan_of
from numpy.typing import NDArray

from depthcell.errors import DepthcellError, Reason
from depthcell.fusion.budget import uncertainty_budget
from depthcell.inspect.gauges.seam import measure_seam
from depthcell.inspect.gaugesections import SeamGauge

Profile = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def seam(dimension: str, statistic: str = "mean") -> SeamGauge:
    said = {"kind": "seam", "name": "weld", "normal": (0, 0, 1), "dimension": dimension, "statistic": statistic}
    where = {"start_mm": (-20, 0, 0), "end_mm": (20, 0, 0), "reach_mm": 15, "spacing_mm": 4}
    return SeamGauge.model_validate(said | where)


def surface(height_mm: Profile, spacing_mm: float = 0.25) -> Patch:
    """A profile over y, the same all along x."""
    x, y = (grid.ravel() for grid in np.meshgrid(np.arange(-21, 21, 0.5), np.arange(-15, 15, spacing_mm) + 0.11))
    slope = (height_mm(y + 1e-4) - height_mm(y - 1e-4)) / 2e-4
    normals = np.stack((np.zeros_like(x), -slope, np.ones_like(x)), axis=1)
    normals /= np.linalg.norm(normals, axis=1)[:, None]
    return Patch(np.stack((x, y, height_mm(y)), axis=1) / 1e3, normals)


def butt(y: NDArray[np.float64]) -> NDArray[np.float64]:
    """8 mm wide, 1.5 mm high: an arc of a circle."""
    half, high = 4.0, 1.5
    radius = (half**2 + high**2) / (2 * high)
    return np.where(np.abs(y) < half, np.sqrt(np.maximum(radius**2 - y**2, 0)) - (radius - high), 0.0)


def fillet(y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Two faces at 90 degrees, seen along the bisector, joined by a flat face of 5 mm throat."""
    return np.maximum(np.abs(y), 5.0)


def undercut(y: NDArray[np.float64]) -> NDArray[np.float64]:
    """A butt weld with a groove 0.4 mm deep beside its right toe."""
    return butt(y) - 0.4 * np.exp(-np.square((y - 5.8) / 0.8))


@pytest.mark.parametrize(
    ("profile", "dimension", "true_mm", "within_mm"),
    [
        (butt, "width", 8.0, 0.5),
        (butt, "height", 1.5, 0.02),
        (butt, "undercut", 0.0, 0.01),
        (fillet, "width", 10.0, 0.05),
        (fillet, "throat", 5.0, 0.02),
        (fillet, "height", 0.0, 0.02),
        (undercut, "undercut", 0.4, 0.1),
    ],
)
def test_a_known_section_is_measured(profile: Profile, dimension: str, true_mm: float, within_mm: float) -> None:
    scan = scan_of([surface(profile)])
    assert measure_seam(seam(dimension), scan).value * 1e3 == pytest.approx(true_mm, abs=within_mm)


def test_the_smallest_section_counts_where_it_is_asked_for() -> None:
    patch = surface(fillet)
    low = (np.abs(patch.points[:, 0]) < 4.1e-3) & (np.abs(patch.points[:, 1]) < 4e-3)
    patch.points[low, 2] -= 0.6e-3
    scan = scan_of([patch])
    assert measure_seam(seam("throat", "smallest"), scan).value * 1e3 == pytest.approx(4.4, abs=0.03)
    assert measure_seam(seam("throat", "largest"), scan).value * 1e3 == pytest.approx(5.0, abs=0.03)


@pytest.mark.parametrize(("profile", "dimension", "true_m"), [(butt, "height", 1.5e-3), (fillet, "throat", 5e-3)])
def test_stated_noise_of_a_seam_holds(profile: Profile, dimension: str, true_m: float) -> None:
    z = []
    for seed in range(8):
        scan = scan_of([surface(profile)], Measured(sigma_m=3e-5, seed=seed))
        reading = measure_seam(seam(dimension), scan)
        u = uncertainty_budget(reading.influence, scan, reading.noise_u, reading.extra_u).u
        z.append((reading.value - true_m) / u)
    assert np.mean(np.abs(z) < 2.5) > 0.85


@pytest.mark.parametrize("profile", [np.zeros_like, lambda y: 0.1 * y])
def test_a_flat_face_is_no_seam(profile: Profile) -> None:
    with pytest.raises(DepthcellError, match="of 10 sections show") as caught:
        measure_seam(seam("width"), scan_of([surface(profile)], Measured(sigma_m=2e-5)))
    assert caught.value.reason is Reason.NOT_MEASURED


def test_a_normal_along_the_seam_is_refused() -> None:
    bad = seam("width").model_copy(update={"normal": (1.0, 0.0, 0.01)})
    with pytest.raises(DepthcellError, match="normal lies along"):
        measure_seam(bad, scan_of([surface(butt)]))


def test_what_is_drawn_lies_on_the_toes() -> None:
    reading = measure_seam(seam("width"), scan_of([surface(fillet)]))
    pieces = reading.drawn[0].curve_part
    assert pieces is not None
    assert pieces.shape == (10, 2, 3)
    assert np.allclose(np.abs(pieces[..., 1]), 5e-3, atol=5e-5)
    assert math.isclose(reading.value, np.linalg.norm(pieces[0, 1] - pieces[0, 0]), rel_tol=0.02)
