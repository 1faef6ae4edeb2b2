"""Acceptance of a cell on artefacts, in the style of VDI/VDE 2634 part 2: what it measured against what is certified.

Each test gives an error (measured less certified, VIM 2.16), which is judged in one of two ways:

- against a limit that somebody states: by guard bands of the test's own uncertainty, the certificate's and the noise's
  (ISO 14253-1:2017). What the calibration left wrong is not part of it: that is what the test measures;
- without one, against what the cell says of itself: its covariance, the noise and the certificate, together, say how
  large an error may be. A cell whose errors are larger states its uncertainty wrongly.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import FloatArray
from depthcell.calib.cell import Cell
from depthcell.calib.conformity import COVERAGE_FACTOR, conforms
from depthcell.calib.verify.acceptance_points import ShapeFit, distance_jacobian, systematic_u_m
from depthcell.errors import DepthcellError

FALSE_ALARM = 0.05
"""Probability that a cell which states its uncertainty rightly fails some test of a verification."""
OUTLIERS = 0.003
"""Share of the points, those farthest from the shape, that probing form and flatness leave out."""
DRAWS = 400
MERGED = "merged"


class Characteristic(StrEnum):
    """What an acceptance test measures; values and limits are lengths."""

    PROBING_FORM = "PF"
    PROBING_SIZE = "PS"
    SPHERE_SPACING = "SD"
    FLATNESS = "F"
    STEP_HEIGHT = "H"

    @property
    def is_range(self) -> bool:
        """Whether it is a range, never negative, rather than a signed error."""
        return self in {Characteristic.PROBING_FORM, Characteristic.FLATNESS}

    @property
    def in_words(self) -> str:
        """For people."""
        return {
            "PF": "probing error, form",
            "PS": "probing error, size",
            "SD": "sphere spacing error",
            "F": "flatness error",
            "H": "step height error",
        }[self.value]


@dataclass(frozen=True, slots=True)
class TestValue:
    """One error, found at one placement.

    Attributes:
        characteristic: what was tested.
        source: "merged", or the serial number of the camera that measured alone.
        placement: where the artefact stood.
        value_m: the error; for a range the range itself.
        certified_m: of the artefact.
        u_noise_m, u_certificate_m: standard uncertainties of the test.
        u_cell_m: standard uncertainty that the cell's covariance (and the matching window, on spheres) states.
        expected_m: 0 for an error, the range to be expected for a range.
        points: that were used.
        detail: which sphere or step.
    """

    characteristic: Characteristic
    source: str
    placement: str
    value_m: float
    certified_m: float
    u_noise_m: float
    u_certificate_m: float
    u_cell_m: float
    expected_m: float = 0.0
    points: int = 0
    detail: str = ""

    __test__ = False  # pytest takes a class of this name for a test

    @property
    def u_test_m(self) -> float:
        """Standard uncertainty of the test: what another such test would change (GUM 5.1.2)."""
        return math.hypot(self.u_noise_m, self.u_certificate_m)

    @property
    def u_m(self) -> float:
        """Standard uncertainty of the error as the cell states it: noise, certificate, calibration (GUM 5.1.2)."""
        return math.hypot(self.u_noise_m, self.u_certificate_m, self.u_cell_m)


@dataclass(frozen=True, slots=True)
class Limits:
    """Largest permissible errors in metres, by characteristic; what is absent is judged by the cell's own statement."""

    stated_m: dict[Characteristic, float] = field(default_factory=dict)

    @classmethod
    def parse(cls, texts: Iterable[str]) -> "Limits":
        """From the command line: "PS=0.1mm", "PF=0.4mm" ...

        Raises:
            DepthcellError: a text cannot be read, or one characteristic stands twice.
        """
        stated: dict[Characteristic, float] = {}
        for text in texts:
            name, _, word = text.partition("=")
            try:
                characteristic, value_mm = Characteristic(name.strip().upper()), float(word.strip().removesuffix("mm"))
            except ValueError:
                known = ", ".join(Characteristic)
                raise DepthcellError(f"--limit {text}: write it as PS=0.1mm; known are {known}") from None
            if not (math.isfinite(value_mm) and value_mm > 0):
                raise DepthcellError(f"--limit {text}: must be a positive length in mm")
            if characteristic in stated:
                raise DepthcellError(f"--limit {text}: {characteristic} stands twice")
            stated[characteristic] = value_mm / 1e3
        return cls(stated)


@dataclass(frozen=True, slots=True)
class Tested:
    """A judged test value.

    Attributes:
        limit_m: largest permissible.
        limit_is_stated: by somebody, rather than by the cell's own uncertainty.
        passed: proven True or False; None where the test is too uncertain to tell.
    """

    value: TestValue
    limit_m: float
    limit_is_stated: bool
    passed: bool | None

    @property
    def exhausted(self) -> float:
        """Share of the limit that is used up."""
        return abs(self.value.value_m) / self.limit_m if self.limit_m > 0 else math.inf

    @property
    def in_words(self) -> str:
        """The test and its outcome in one line."""
        value = self.value
        word = {True: "kept", False: "exceeded", None: "cannot be decided"}[self.passed]
        whose = "stated limit" if self.limit_is_stated else "the cell's own statement"
        who = "merged cloud" if value.source == MERGED else f"camera {value.source}"
        where = f"{value.placement} ({value.detail})" if value.detail else value.placement
        return (
            f"{value.characteristic.in_words} of {who} at {where}: "
            f"{value.value_m * 1e3:.3f} ± {COVERAGE_FACTOR * value.u_m * 1e3:.3f} mm, {whose} of "
            f"{self.limit_m * 1e3:.3f} mm {word}"
        )


def judged(values: Sequence[TestValue], limits: Limits) -> tuple[Tested, ...]:
    """Judge every test value.

    Where a limit is stated, conformity and non-conformity have to be proven at 95 % (`conformity.conforms`). Where not,
    the limit is the error that a cell which states its uncertainty rightly exceeds with a probability of
    `FALSE_ALARM / m`, m the number of tests so judged (Bonferroni: together they fail it with at most `FALSE_ALARM`):
    the two-sided quantile of a normal distribution times `u`; for a range the upper quantile of a Gumbel distribution
    of the mean and spread that were drawn for it (E. J. Gumbel, Statistics of Extremes, 1958: location and scale from
    moments, `beta = s sqrt(6) / pi`, `mu = mean - 0.5772 beta`).
    """
    count = sum(value.characteristic not in limits.stated_m for value in values)
    return tuple(_judged(value, limits, FALSE_ALARM / max(count, 1)) for value in values)


def worst(tested: Sequence[Tested]) -> tuple[Tested, ...]:
    """Of each characteristic and source the test that uses up most of its limit, those of the merged cloud first."""
    best: dict[tuple[str, str], Tested] = {}
    for one in tested:
        key = (one.value.characteristic.value, one.value.source)
        if key not in best or (one.passed is False, one.exhausted) > (best[key].passed is False, best[key].exhausted):
            best[key] = one
    return tuple(sorted(best.values(), key=lambda one: (one.value.characteristic, one.value.source != MERGED)))


def outcome(tested: Sequence[Tested]) -> bool | None:
    """False if any test failed, None if any cannot be decided, True if there are tests and all passed."""
    if any(one.passed is False for one in tested):
        return False
    return True if tested and all(one.passed for one in tested) else None


def trimmed_range(distances_m: FloatArray, share: float = OUTLIERS) -> float:
    """Range of signed distances (N,), metres, after the `share` of them that is largest in size is left out."""
    kept = len(distances_m) - int(share * len(distances_m))
    inner = distances_m[np.argsort(np.abs(distances_m))[:kept]]
    return float(np.ptp(inner))


@dataclass(frozen=True, slots=True)
class ExpectedRange:
    """The range of distances that noise and calibration let expect, metres: mean, and standard deviations."""

    mean_m: float
    noise_m: float
    total_m: float


def expected_range(fit: ShapeFit, cell: Cell, rng: np.random.Generator) -> ExpectedRange:
    """What range the points' distances from the fitted shape should have, by drawing it (JCGM 101, chapter 7).

    Each draw adds correlated noise, and a cell that errs by its covariance, at the points of the fit, and takes out
    what the fit takes out: `(I - A G) e`.
    """
    points = fit.points
    noise = _root(points.noise) @ rng.standard_normal((len(points), DRAWS))
    spread = _root(cell.joint_covariance)
    moved = distance_jacobian(points, fit.directions, cell) @ spread @ rng.standard_normal((len(spread), DRAWS))
    drawn = [np.array([trimmed_range(e) for e in _left_by(fit, errors).T]) for errors in (noise, noise + moved)]
    return ExpectedRange(float(drawn[1].mean()), float(drawn[0].std(ddof=1)), float(drawn[1].std(ddof=1)))


def range_value(
    characteristic: Characteristic,
    residuals_m: NDArray[np.float64],
    fit: ShapeFit,
    cell: Cell,
    rng: np.random.Generator,
) -> TestValue:
    """Probing form or flatness: the range of all points' distances; source, placement, certificate are to be added."""
    expected = expected_range(fit, cell, rng)
    return TestValue(
        characteristic=characteristic,
        source="",
        placement="",
        value_m=trimmed_range(residuals_m),
        certified_m=0.0,
        u_noise_m=expected.noise_m,
        u_certificate_m=0.0,
        u_cell_m=math.sqrt(max(expected.total_m**2 - expected.noise_m**2, 0.0)),
        expected_m=expected.mean_m,
        points=len(residuals_m),
    )


def error_value(
    characteristic: Characteristic,
    measured_m: float,
    certified: tuple[float, float],
    fits: Sequence[tuple[ShapeFit, FloatArray]],
    cell: Cell,
    window_m: float = 0.0,
) -> TestValue:
    """A signed error: measured less certified; source and placement are to be added.

    Args:
        characteristic: what is measured.
        measured_m: the result.
        certified: certified value and its standard uncertainty, metres.
        fits: the shapes that the result comes from, each with how the result grows with its parameters (P,). Shapes
            have separate points, so that their noise is independent; the cell's errors are shared.
        cell: what was measured with.
        window_m: standard uncertainty from the matching window.
    """
    noise_m = math.hypot(*(fit.u_noise_m(combination) for fit, combination in fits))
    per_parameter = np.sum([fit.per_parameter(combination, cell) for fit, combination in fits], axis=0)
    return TestValue(
        characteristic=characteristic,
        source="",
        placement="",
        value_m=measured_m - certified[0],
        certified_m=certified[0],
        u_noise_m=noise_m,
        u_certificate_m=certified[1],
        u_cell_m=math.hypot(systematic_u_m(per_parameter, cell), window_m),
        points=sum(len(fit.points) for fit, _ in fits),
    )


def window_u_m(fit: ShapeFit, combination: FloatArray) -> float:
    """What a matching window takes off a sphere, as a standard uncertainty of a combination (P,) of its parameters.

    Depth averaged over a square of side w lies `w² / (12 R)` below a sphere of radius R; w is taken as twice the
    distance over which the camera's noise is correlated, since noise is alike where windows overlap. Which way the
    camera's matching really weighs its window nobody outside knows, so the whole effect is taken for one standard
    uncertainty.
    """
    sunk_m = np.square(2 * fit.points.correlation_m) / (12 * fit.parameters[3])
    return float(abs(combination @ fit.gain @ sunk_m))


def _root(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """A matrix A with `A A^T` the covariance, or the nearest thing to it that is one."""
    try:
        return np.asarray(np.linalg.cholesky(covariance), dtype=np.float64)
    except np.linalg.LinAlgError:  # correlation lengths that vary, or parameters that are exact
        values, vectors = np.linalg.eigh(covariance)
        return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)), dtype=np.float64)


def _left_by(fit: ShapeFit, errors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Errors (N, D) of the points less what the fit follows of them."""
    return np.asarray(errors - fit.design @ (fit.gain @ errors))


def _judged(value: TestValue, limits: Limits, false_alarm: float) -> Tested:
    stated_m = limits.stated_m.get(value.characteristic)
    if stated_m is not None:
        lower = None if value.characteristic.is_range else -stated_m
        return Tested(value, stated_m, True, conforms(value.value_m, value.u_test_m, lower, stated_m))
    if value.characteristic.is_range:
        own_m = math.hypot(value.u_noise_m, value.u_cell_m)
        scale_m = own_m * math.sqrt(6) / math.pi
        quantile_m = value.expected_m - np.euler_gamma * scale_m - scale_m * math.log(-math.log1p(-false_alarm))
        limit_m = quantile_m + value.certified_m + COVERAGE_FACTOR * value.u_certificate_m
    else:
        limit_m = NormalDist().inv_cdf(1 - false_alarm / 2) * value.u_m
    return Tested(value, limit_m, False, abs(value.value_m) <= limit_m)
