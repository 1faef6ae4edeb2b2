"""Width, height, throat and undercut of a bead or weld seam, section by section along its line.

A section is a profile h(x) across the seam. The faces beside the seam are straight lines on both sides; the seam is
what rises over them in between. Its toes are where its flanks, straight over a short stretch, meet the faces.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import FloatArray
from depthcell.fusion.influence import Influence
from depthcell.fusion.scan import Scan
from depthcell.inspect.gauges.reading import Drawn, Quantity, Reading, not_measured
from depthcell.inspect.gaugesections import SeamGauge
from depthcell.inspect.section import metres, unit_vector

OUTER = 0.6
"""Points farther from the seam's line than this share of `reach_mm` are of the faces alone."""
FEWEST_OF_FACE, FEWEST_OF_SEAM = 5, 5
RISES = 4.0
"""The seam begins where the profile leaves a face's line by so many times its scatter."""
FLANK_M = 1e-3
"""Stretch of a flank that is taken for straight: a round one meets the face farther out, by up to 0.2 mm to a side."""
FILTER_M = 5e-4
"""Stretch of a profile that is averaged before its extremes are taken (nesting index of the filter). It flattens a
crown of radius r by `FILTER_M² / 12 r` at most: 5 um for 4 mm."""
ROOT_DEG = 15.0
"""Faces at a smaller angle have no root where they meet; then the seam's nominal line is taken for it."""
BESIDE = 0.5
"""Undercut is looked for beside each toe over this share of the seam's width."""
LEAST_SCATTER_M = 2e-6
FACING = 0.3
"""Cosine to the seam's normal below which a point is of a wall, not of the profile."""
SLIVER = 0.4
MOST_POINTS = 700
DRAWS = 24
SEED = 5817
FEWEST_SECTIONS = 3


@dataclass(frozen=True, slots=True, eq=False)
class _Section:
    """One profile, averaged over stretches of `FILTER_M`.

    Attributes:
        along_m: place of the section along the seam.
        points: (K,) intp, of the cloud.
        x_m, h_m: (S,) place across the seam, ascending, and height.
        factor: (S, S) with `factor factor^T` the covariance of `h_m` from noise.
    """

    along_m: float
    points: NDArray[np.intp]
    x_m: NDArray[np.float64]
    h_m: NDArray[np.float64]
    factor: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Shape:
    """What a section shows, metres: toes (x, h), height over the line between them, throat, undercut."""

    toes: tuple[tuple[float, float], tuple[float, float]]
    height_m: float
    throat_m: float
    undercut_m: float

    def dimension(self, name: str) -> float:
        """One of them by the recipe's word."""
        (x_a, h_a), (x_b, h_b) = self.toes
        width_m = math.hypot(x_b - x_a, h_b - h_a)
        return {"width": width_m, "height": self.height_m, "throat": self.throat_m, "undercut": self.undercut_m}[name]


def measure_seam(section: SeamGauge, scan: Scan) -> Reading:
    """One dimension of a seam, over its sections.

        width     distance of the toes
        height    largest height of the seam over the straight line between its toes: the excess of a butt weld, the
                  convexity of a fillet (as ISO 5817 and ISO 6520-1 call it)
        throat    shortest distance from the root to the seam's face: the actual throat of a fillet. The root is where
                  the lines of both faces meet; where they are nearly parallel (a lap joint) the nominal line itself
        undercut  deepest groove below a face's line beside a toe; 0 without

    Noise acts on toes and extremes, not to first order: each section is measured again with as much noise added as the
    cloud states, several times. The mean shift that this brings is taken off and stated as a contribution of its own,
    the scatter is the uncertainty (SIMEX: Cook and Stefanski, Journal of the American Statistical Association 89 (1994)
    1314).

    Raises:
        DepthcellError: (`NOT_MEASURED`) too few sections show faces on both sides and a seam between.
    """
    frame = _Frame.of(section)
    shapes = [(profile, shape) for profile in frame.profiles(scan) if (shape := _shape(profile, frame)) is not None]
    if len(shapes) < min(FEWEST_SECTIONS, frame.count):
        raise not_measured(
            section.name,
            f"{len(shapes)} of {frame.count} sections show both faces and a seam between; no camera saw the others, or "
            "start_mm, end_mm, normal and reach_mm do not fit the seam",
        )
    rng = np.random.default_rng(SEED)
    values_m = np.array([shape.dimension(section.dimension) for _, shape in shapes])
    again_m = np.array([_again(profile, frame, section.dimension, rng) for profile, _ in shapes])
    drawn_m = np.array([_of_sections(column, section.statistic) for column in again_m.T])
    value_m = max(0.0, 2 * _of_sections(values_m, section.statistic) - float(drawn_m.mean()))
    noise_u_m = float(drawn_m.std(ddof=1))
    shift_m = abs(float(drawn_m.mean()) - _of_sections(values_m, section.statistic))
    extra = [("noise at toes and extremes", shift_m)]
    if section.statistic == "mean":
        # The sections are a sample of the seam; how it differs from place to place is in their scatter.
        noise2 = again_m.var(axis=1, ddof=1).mean()
        between_m = math.sqrt(max(float(values_m.var(ddof=1)) - float(noise2), 0.0) / len(values_m))
        extra.append(("sampling of the seam", between_m))
    influence = _influence(section.dimension, shapes, frame, scan)
    note = f"{section.statistic} of {len(shapes)} sections of {frame.count}, {section.spacing_mm:g} mm apart"
    return Reading(
        value_m, Quantity.LENGTH, influence, _drawn(shapes, frame), note, noise_u=noise_u_m, extra_u=tuple(extra)
    )


def _of_sections(values_m: NDArray[np.float64], statistic: str) -> float:
    return float({"mean": values_m.mean(), "smallest": values_m.min(), "largest": values_m.max()}[statistic])


@dataclass(frozen=True, slots=True, eq=False)
class _Frame:
    """The seam's own axes, frame "part": from `start` along it, across it, out of the faces."""

    start: NDArray[np.float64]
    along: NDArray[np.float64]
    across: NDArray[np.float64]
    normal: NDArray[np.float64]
    length_m: float
    reach_m: float
    spacing_m: float

    @classmethod
    def of(cls, section: SeamGauge) -> "_Frame":
        start, end = metres(section.start_mm), metres(section.end_mm)
        length_m = float(np.linalg.norm(end - start))
        along, given = (end - start) / length_m, unit_vector(section.normal)
        normal = given - (given @ along) * along
        if np.linalg.norm(normal) < 0.1:
            raise not_measured(section.name, "normal lies along the seam; give the direction out of the faces")
        normal /= np.linalg.norm(normal)
        reach_m, spacing_m = section.reach_mm / 1e3, section.spacing_mm / 1e3
        return cls(start, along, np.cross(normal, along), normal, length_m, reach_m, spacing_m)

    @property
    def count(self) -> int:
        """Sections along the seam."""
        return max(1, int(self.length_m / self.spacing_m))

    def profiles(self, scan: Scan) -> list[_Section]:
        """The sections that hold points on both sides."""
        offset = scan.points_part - self.start
        s_m, x_m, h_m = offset @ self.along, offset @ self.across, offset @ self.normal
        facing = scan.normals_part @ self.normal
        near = np.flatnonzero(
            (np.abs(x_m) <= self.reach_m) & (np.abs(h_m) <= self.reach_m) & (facing > FACING) & (s_m >= 0)
        ).astype(np.intp)
        which = (s_m[near] / self.length_m * self.count).astype(np.intp)
        chosen = [near[which == number] for number in range(self.count)]
        sections = [
            self._section(number, _thinned(points), (x_m, h_m, facing), scan)
            for number, points in enumerate(chosen)
            if len(points) > 2 * FEWEST_OF_FACE
        ]
        return [section for section in sections if len(section.x_m) > 2 * FEWEST_OF_FACE]

    def _section(
        self, number: int, points: NDArray[np.intp], columns: tuple[NDArray[np.float64], ...], scan: Scan
    ) -> _Section:
        x_m, h_m, facing = (column[points] for column in columns)
        _, stretch, count = np.unique(np.floor(x_m / FILTER_M), return_inverse=True, return_counts=True)
        usual = np.flatnonzero(count >= SLIVER * np.median(count))
        means = np.zeros((len(count), len(points)))
        means[stretch, np.arange(len(points))] = 1 / count[stretch]
        means = means[usual]
        sigma_m = scan.cloud.random_sigma_m[points] / facing
        length_m = max(float(np.median(scan.cloud.correlation_m[points])), 1e-9)
        at = scan.cloud.points_cell[points]
        apart2 = np.square(at[:, None] - at[None]).sum(axis=2)
        covariance = means @ (np.outer(sigma_m, sigma_m) * np.exp(-apart2 / length_m**2)) @ means.T
        floor = 1e-9 * float(np.trace(covariance)) / len(usual)
        factor = np.linalg.cholesky(covariance + floor * np.eye(len(usual)))
        along_m = (number + 0.5) * self.length_m / self.count
        return _Section(along_m, points, means @ x_m, means @ h_m, factor)


def _thinned(points: NDArray[np.intp]) -> NDArray[np.intp]:
    """Every n-th, so that no more than `MOST_POINTS` are left: a section's covariance grows with their square."""
    return points[:: math.ceil(len(points) / MOST_POINTS)]


def _shape(profile: _Section, frame: _Frame, h_m: FloatArray | None = None) -> _Shape | None:
    """What a section shows, or None where a face or the seam is missing."""
    x, h = profile.x_m, profile.h_m if h_m is None else h_m
    outer_m = OUTER * frame.reach_m
    sides = (x < -outer_m, x > outer_m)
    if any(side.sum() < FEWEST_OF_FACE for side in sides):
        return None
    faces = [_line(x[side], h[side]) for side in sides]
    stated_m = np.linalg.norm(profile.factor, axis=1)
    scatter_m = [
        max(_spread(x[side], h[side], face), float(np.median(stated_m[side])), LEAST_SCATTER_M)
        for side, face in zip(sides, faces, strict=True)
    ]
    # Outside in: where the profile leaves the face for good.
    off = [h - np.polyval(face, x) for face in faces]
    left = np.flatnonzero((np.abs(off[0]) > RISES * scatter_m[0]) & (x >= -outer_m))
    right = np.flatnonzero((np.abs(off[1]) > RISES * scatter_m[1]) & (x <= outer_m))
    if len(left) == 0 or len(right) == 0 or right[-1] - left[0] < FEWEST_OF_SEAM:
        return None
    begin, end = _rising(off[0], scatter_m[0], left), _rising(off[1], scatter_m[1], right[::-1])
    if begin is None or end is None or end - begin < FEWEST_OF_SEAM:
        return None
    toe_a, toe_b = _toe(x, h, faces[0], begin, +1), _toe(x, h, faces[1], end, -1)
    if toe_b[0] - toe_a[0] < FLANK_M / 2:
        return None
    seam = (x > toe_a[0]) & (x < toe_b[0])
    if seam.sum() < FEWEST_OF_SEAM:
        return None
    root = _root(faces)
    throat_m = float(np.hypot(x[seam] - root[0], h[seam] - root[1]).min())
    height_m = _over_chord(x[seam], h[seam], toe_a, toe_b)
    return _Shape((toe_a, toe_b), height_m, throat_m, _undercut(x, off, toe_a, toe_b))


def _line(x: FloatArray, h: FloatArray) -> NDArray[np.float64]:
    """Slope and offset, the farthest tenth left out once."""
    first = np.polyfit(x, h, 1)
    off = np.abs(h - np.polyval(first, x))
    keep = off <= np.quantile(off, 0.9)
    return np.asarray(np.polyfit(x[keep], h[keep], 1) if keep.sum() >= FEWEST_OF_FACE else first)


def _spread(x: FloatArray, h: FloatArray, line: FloatArray) -> float:
    return 1.4826 * float(np.median(np.abs(h - np.polyval(line, x))))


def _rising(off: FloatArray, scatter_m: float, candidates: NDArray[np.intp]) -> int | None:
    """The first place, in the candidates' order, from which the profile stays above the face for three points."""
    above = off > RISES * scatter_m
    step = 1 if len(candidates) < 2 or candidates[1] > candidates[0] else -1
    for place in candidates:
        run = [place + step * k for k in range(3)]
        if all(0 <= at < len(off) and above[at] for at in run):
            return int(place)
    return None


def _toe(x: FloatArray, h: FloatArray, face: FloatArray, begin: int, step: int) -> tuple[float, float]:
    """Where the flank's line meets the face's; where they are nearly parallel, the place where the seam began."""
    # The stretch in which the seam begins holds points of both.
    flank = (step * (x - x[begin]) > FILTER_M / 2) & (step * (x - x[begin]) <= FLANK_M + FILTER_M / 2)
    if flank.sum() >= 2:
        slope, offset = np.polyfit(x[flank], h[flank], 1)
        if abs(slope - face[0]) > 0.1:
            at = float((face[1] - offset) / (slope - face[0]))
            if abs(at - x[begin]) < FLANK_M:
                return at, float(np.polyval(face, at))
    return float(x[begin]), float(np.polyval(face, x[begin]))


def _over_chord(x: FloatArray, h: FloatArray, toe_a: tuple[float, float], toe_b: tuple[float, float]) -> float:
    run, rise = toe_b[0] - toe_a[0], toe_b[1] - toe_a[1]
    over = ((h - toe_a[1]) * run - (x - toe_a[0]) * rise) / math.hypot(run, rise)
    return float(over.max())


def _root(faces: list[NDArray[np.float64]]) -> tuple[float, float]:
    """(x, h) where the faces' lines meet; the nominal line where they are nearly parallel."""
    (slope_a, offset_a), (slope_b, offset_b) = faces
    if abs(math.atan(slope_a) - math.atan(slope_b)) < math.radians(ROOT_DEG):
        return 0.0, 0.0
    at = (offset_b - offset_a) / (slope_a - slope_b)
    return float(at), float(slope_a * at + offset_a)


def _undercut(
    x: FloatArray, off: list[NDArray[np.float64]], toe_a: tuple[float, float], toe_b: tuple[float, float]
) -> float:
    beside_m = BESIDE * (toe_b[0] - toe_a[0])
    before, beyond = (x < toe_a[0]) & (x > toe_a[0] - beside_m), (x > toe_b[0]) & (x < toe_b[0] + beside_m)
    grooves = ((off[0], before), (off[1], beyond))
    return max(0.0, 0.0, *(-float(lift[beside].min()) for lift, beside in grooves if beside.any()))


def _again(profile: _Section, frame: _Frame, dimension: str, rng: np.random.Generator) -> NDArray[np.float64]:
    """(DRAWS,) the dimension with the cloud's noise added once more; a draw that shows no seam repeats the value."""
    noise = profile.factor @ rng.standard_normal((len(profile.factor), DRAWS))
    own = _shape(profile, frame)
    shapes = [_shape(profile, frame, profile.h_m + column) or own for column in noise.T]
    return np.array([shape.dimension(dimension) for shape in shapes if shape is not None])


def _influence(dimension: str, shapes: list[tuple[_Section, _Shape]], frame: _Frame, scan: Scan) -> Influence:
    """What calibration does: a seam's height answers to its middle against the faces; a width hardly to any lift.

    The middle third of the seam rises by what its points do, and falls by what those of the faces do.
    """
    if dimension == "width":
        return Influence.none()
    points, gradient = [], []
    for profile, shape in shapes:
        (x_a, _), (x_b, _) = shape.toes
        x_m = (scan.points_part[profile.points] - frame.start) @ frame.across
        inner = np.abs(x_m - (x_a + x_b) / 2) < (x_b - x_a) / 6
        faces = (x_m < x_a) | (x_m > x_b)
        for chosen, sign in ((inner, 1.0), (faces, -1.0)):
            if chosen.any():
                cosine = scan.normals_part[profile.points[chosen]] @ frame.normal
                points.append(profile.points[chosen])
                gradient.append(sign / len(shapes) / chosen.sum() / np.maximum(cosine, 0.3))
    return Influence.of(np.concatenate(points), np.concatenate(gradient))


def _drawn(shapes: list[tuple[_Section, _Shape]], frame: _Frame) -> tuple[Drawn, ...]:
    def placed(along_m: float, toe: tuple[float, float]) -> NDArray[np.float64]:
        return frame.start + along_m * frame.along + toe[0] * frame.across + toe[1] * frame.normal

    pieces = [np.stack([placed(profile.along_m, toe) for toe in shape.toes]) for profile, shape in shapes]
    points = np.unique(np.concatenate([profile.points for profile, _ in shapes]))
    return (Drawn("seam", points, curve_part=np.array(pieces)),)
