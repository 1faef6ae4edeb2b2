"""Has a camera moved? Any body that all cameras see, in any place, must be found by all of them in the same place.

Each camera alone says where the body's features are in the cell: its values, V_i, in metres. With C the joint
covariance of all values, noise and the cell's own uncertainty together, their best common value v minimises
`Q = (V - A v)^T C⁻¹ (V - A v)`, A repeating v for each camera; Q is drawn from chi² with M (n - 1) degrees of freedom
if the cell is as it says. If it is not, the camera without which the rest agrees has moved, by `V_i - v_(without i)`.

A reference, recorded when the cell was calibrated, is taken off first where the body lies in the same place: what the
calibration left wrong there then cancels, and much smaller moves are seen.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.special import gammainccinv

from depthcell.calib.cell import Cell
from depthcell.calib.conformity import COVERAGE_FACTOR
from depthcell.errors import DepthcellError
from depthcell.files import write_text

FALSE_ALARM = 0.01
"""Probability that a cell which has not moved is said to have."""
SAME_PLACE_M = 0.005
MODEL_SHARE = 0.05
"""Of the cell's stated uncertainty, what a body in the same place may still show: it lies up to 5 mm off, and what a
calibration left wrong changes over some 100 mm."""


@dataclass(frozen=True, slots=True, eq=False)
class Sighting:
    """Where one camera alone finds a body.

    Attributes:
        values_m: (M,) its features' coordinates in the cell; comparable from camera to camera.
        noise: (M, M) covariance from noise, m².
        jacobian: (M, sum P) how the values move with the cell's parameters.
        middle: (3, M) how the middle of the body moves in the cell with the values.
    """

    values_m: NDArray[np.float64]
    noise: NDArray[np.float64]
    jacobian: NDArray[np.float64]
    middle: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CameraShift:
    """How far one camera finds the body from where the others do.

    Attributes:
        serial: the camera.
        shift_m: (3,) of the body's middle, in the cell.
        size_m: length of it; u_m: its standard uncertainty along it.
    """

    serial: str
    shift_m: tuple[float, float, float]
    size_m: float
    u_m: float

    @property
    def in_words(self) -> str:
        """For a person."""
        return f"camera {self.serial} off by {self.size_m * 1e3:.3f} ± {COVERAGE_FACTOR * self.u_m * 1e3:.3f} mm"


@dataclass(frozen=True, slots=True)
class DriftCheck:
    """The outcome.

    Attributes:
        statistic: Q; limit: what it may be; freedom: its degrees of freedom.
        shifts: of each camera against the others.
        moved: serial numbers of the cameras that moved; both where two are all there are, since either may have.
        with_reference: whether the reference was taken off.
    """

    statistic: float
    limit: float
    freedom: int
    shifts: tuple[CameraShift, ...]
    moved: tuple[str, ...]
    with_reference: bool

    @property
    def passed(self) -> bool:
        """Whether no camera moved, as far as can be seen."""
        return self.statistic <= self.limit

    @property
    def in_words(self) -> str:
        """For a person, in one line."""
        against = "the reference" if self.with_reference else "the calibration"
        largest = max(self.shifts, key=lambda shift: shift.size_m)
        if self.passed:
            return f"no camera has moved against {against}; {largest.in_words}"
        by = {shift.serial: shift.in_words for shift in self.shifts}
        if len(self.moved) == 1:
            return f"{by[self.moved[0]]} against {against}: it was bumped; calibrate the cell anew"
        names = " and ".join(self.moved)
        either = "either may have been bumped" if len(self.shifts) == 2 else "several were bumped"
        return f"cameras {names} disagree ({by[self.moved[0]]}) against {against}: {either}; calibrate the cell anew"


def check_drift(sightings: Mapping[str, Sighting], cell: Cell, reference: "DriftReference | None" = None) -> DriftCheck:
    """Compare where the cameras find a body.

    Args:
        sightings: serial number -> where that camera finds it.
        cell: as it says it is.
        reference: what they found when it was calibrated.

    Raises:
        DepthcellError: fewer than two cameras saw the body.
    """
    serials = tuple(sightings)
    if len(serials) < 2:
        seen = f"only {serials[0]} did" if serials else "none did"
        raise DepthcellError(
            f"drift: two cameras or more must see the body, but {seen}; let it rest where they overlap, all the time"
        )
    values, covariance, taken_off = _compared(sightings, cell, reference)
    everyone = list(range(len(serials)))
    size = values.shape[1]
    statistic, freedom = _disagreement(values, covariance, everyone), size * (len(serials) - 1)
    limit = _quantile(freedom)
    middle = next(iter(sightings.values())).middle
    shifts = tuple(_shift(values, covariance, middle, number, serials) for number in range(len(serials)))
    moved = () if statistic <= limit else _moved(values, covariance, serials)
    return DriftCheck(statistic, limit, freedom, shifts, moved, taken_off)


def _quantile(freedom: int) -> float:
    """What chi² exceeds with a probability of `FALSE_ALARM`."""
    return 2 * float(gammainccinv(freedom / 2, FALSE_ALARM))


def _moved(values: NDArray[np.float64], covariance: NDArray[np.float64], serials: tuple[str, ...]) -> tuple[str, ...]:
    """The one camera without which the others agree; else as many as have to be left out, worst first."""
    left = list(range(len(serials)))
    out: list[int] = []
    while len(left) > 1:
        if len(left) == 2 and not out:
            return serials
        rest = {number: _disagreement(values, covariance, [n for n in left if n != number]) for number in left}
        worst = min(rest, key=lambda number: rest[number])
        out.append(worst)
        left.remove(worst)
        freedom = values.shape[1] * (len(left) - 1)
        if freedom == 0 or rest[worst] <= _quantile(freedom):
            break
    return tuple(serials[number] for number in out)


def _compared(
    sightings: Mapping[str, Sighting], cell: Cell, reference: "DriftReference | None"
) -> tuple[NDArray[np.float64], NDArray[np.float64], bool]:
    """Values (n, M) and joint covariance (n M, n M), less the reference where the body lies as it lay then."""
    values = np.stack([sighting.values_m for sighting in sightings.values()])
    jacobian = np.concatenate([sighting.jacobian for sighting in sightings.values()])
    systematic = jacobian @ cell.joint_covariance @ jacobian.T
    noise = _block_diagonal([sighting.noise for sighting in sightings.values()])
    then = None if reference is None else reference.values_of(tuple(sightings), cell)
    if then is None or then[0].shape != values.shape:
        return values, systematic + noise, False
    change = values - then[0]
    if np.abs(np.median(change, axis=0)).max() > SAME_PLACE_M:
        return values, systematic + noise, False
    return change, MODEL_SHARE**2 * systematic + noise + _block_diagonal(list(then[1])), True


def _disagreement(values: NDArray[np.float64], covariance: NDArray[np.float64], chosen: list[int]) -> float:
    """Q of the cameras chosen."""
    if len(chosen) < 2:
        return 0.0
    stacked, inverse, repeat = _chosen(values, covariance, chosen)
    common = np.linalg.solve(repeat.T @ inverse @ repeat, repeat.T @ inverse @ stacked)
    left = stacked - repeat @ common
    return float(left @ inverse @ left)


def _shift(
    values: NDArray[np.float64],
    covariance: NDArray[np.float64],
    middle: NDArray[np.float64],
    number: int,
    serials: tuple[str, ...],
) -> CameraShift:
    """One camera against the best common value of the others, the body's middle."""
    count, size = values.shape
    others = [other for other in range(count) if other != number]
    _, inverse, repeat = _chosen(values, covariance, others)
    gain = np.linalg.solve(repeat.T @ inverse @ repeat, repeat.T @ inverse)
    weights = np.zeros((size, count * size))
    weights[:, number * size : (number + 1) * size] = np.eye(size)
    for place, other in enumerate(others):
        weights[:, other * size : (other + 1) * size] = -gain[:, place * size : (place + 1) * size]
    shift_m = middle @ weights @ values.ravel()
    spread = middle @ weights @ covariance @ weights.T @ middle.T
    size_m = float(np.linalg.norm(shift_m))
    along = shift_m / size_m if size_m > 0 else np.array([1.0, 0.0, 0.0])
    x, y, z = (float(part) for part in shift_m)
    return CameraShift(serials[number], (x, y, z), size_m, math.sqrt(max(float(along @ spread @ along), 0.0)))


def _chosen(
    values: NDArray[np.float64], covariance: NDArray[np.float64], chosen: list[int]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Stacked values of some cameras, the inverse of their covariance, and A."""
    size = values.shape[1]
    rows = np.concatenate([np.arange(number * size, (number + 1) * size) for number in chosen])
    inverse = np.asarray(np.linalg.pinv(covariance[np.ix_(rows, rows)], hermitian=True), dtype=np.float64)
    return values[chosen].ravel(), inverse, np.tile(np.eye(size), (len(chosen), 1))


def _block_diagonal(blocks: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    size = len(blocks[0])
    joined = np.zeros((size * len(blocks), size * len(blocks)))
    for number, block in enumerate(blocks):
        joined[number * size : (number + 1) * size, number * size : (number + 1) * size] = block
    return joined


class SightingFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where one camera found the body: values in metres, and the noise's covariance in m², row by row."""

    values_m: tuple[float, ...]
    noise_m2: tuple[tuple[float, ...], ...]


class DriftReference(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the cameras found when the cell was calibrated: the file `cell.drift.json` beside the cell.

    Attributes:
        schema_version: of this file.
        cell_sha256: which cell.
        artefact: the body.
        recorded_at: ISO 8601, UTC.
        frame: from where the values were counted: a board's turn (rotation vector), a plate's middle (m), else zeros.
        sightings: by serial number.
    """

    schema_version: int
    cell_sha256: str
    artefact: str
    recorded_at: str
    frame: tuple[float, float, float]
    sightings: dict[str, SightingFile]

    @classmethod
    def of(
        cls,
        sightings: Mapping[str, Sighting],
        cell: Cell,
        artefact: str,
        recorded_at: str,
        frame: tuple[float, float, float] = (0.0, 0.0, 0.0),
    ) -> "DriftReference":
        """Keep what was found now."""
        files = {
            serial: SightingFile(
                tuple(sighting.values_m.tolist()), tuple(tuple(row) for row in sighting.noise.tolist())
            )
            for serial, sighting in sightings.items()
        }
        return cls(1, cell.sha256, artefact, recorded_at, frame, files)

    def values_of(self, serials: tuple[str, ...], cell: Cell) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """Values (n, M) and noise (n, M, M) of these cameras; None where one of them is not in the reference.

        Raises:
            DepthcellError: the reference is of another cell.
        """
        if self.cell_sha256 != cell.sha256:
            raise DepthcellError("drift: the reference is of another cell; record one for this cell with --reference")
        if any(serial not in self.sightings for serial in serials):
            return None
        kept = [self.sightings[serial] for serial in serials]
        return np.array([one.values_m for one in kept]), np.array([one.noise_m2 for one in kept])

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        write_text(path, msgspec.json.format(msgspec.json.encode(self), indent=2).decode() + "\n")

    @classmethod
    def load(cls, path: Path) -> "DriftReference":
        """Read the file.

        Raises:
            DepthcellError: it cannot be read or is no such file.
        """
        try:
            return msgspec.json.decode(path.read_bytes(), type=cls)
        except OSError as error:
            raise DepthcellError(f"drift reference {path}: cannot be read ({error.strerror})") from error
        except msgspec.MsgspecError as error:
            raise DepthcellError(f"drift reference {path}: {error}; record it again with --reference") from error


def reference_path(cell_path: Path) -> Path:
    """Where the reference of a cell file is kept."""
    return cell_path.with_suffix(".drift.json")
