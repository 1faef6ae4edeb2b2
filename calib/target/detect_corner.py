"""Where two straight edges cross, to a hundredth of a pixel: a model of the grey values is fitted around each corner.

`cornerSubPix` looks for the point at right angles to all gradients in a window. Its answer depends on the window, and a
marker or a neighbouring corner within it pulls; the fit here says which pixels it uses, and how sure it is.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

ROUNDS = 12
STEP_PX = 5e-4
"""A corner whose last step was shorter is at rest: its error is a hundredth of any that is measured here."""
MAX_REACH_PX = 8
START_BLUR_PX = 0.8
BLUR_LIMITS_PX = (0.2, 6.0)
MIN_ROOM_PX = 0.3
MIN_CONTRAST_TO_MISFIT = 8.0
_PARAMETERS = 7


@dataclass(frozen=True, slots=True, eq=False)
class CornerStart:
    """Roughly where corners are, and how the pattern lies around them.

    Attributes:
        pixels: (N, 2) float64, (column, row).
        along_p, along_q: (N, 2) float64, pixels per unit along the two edges, from the corner.
        low, high: the pattern is as the model says for low < u, v < high, in units along p and q.
        clear: beyond this distance from both edges other print begins (a marker's bits); inf where nothing does.
        is_saddle: black and white quadrants alternate, as on a chessboard; else only the quadrant between p and q is
            of the other shade, as at the corner of a marker.
    """

    pixels: NDArray[np.float64]
    along_p: NDArray[np.float64]
    along_q: NDArray[np.float64]
    low: float
    high: float
    clear: float
    is_saddle: bool


@dataclass(frozen=True, slots=True, eq=False)
class FeatureFit:
    """The corners or discs, in the order of the start.

    Attributes:
        pixels: (N, 2) float64, (column, row).
        sigma_px: (N,) float64, standard uncertainty of one coordinate, from the misfit of the grey values.
        blur_px: (N,) float64, standard deviation of the Gaussian that an edge was smoothed with.
        contrast: (N,) float64, grey value between the quadrant of p and q and those beside it, negative where it is the
            darker one; of a disc less its surroundings.
        misfit: (N,) float64, root mean square of what the model leaves, grey values.
        is_good: (N,) bool, the fit converged nearby, on enough pixels, and explains them.
    """

    pixels: NDArray[np.float64]
    sigma_px: NDArray[np.float64]
    blur_px: NDArray[np.float64]
    contrast: NDArray[np.float64]
    misfit: NDArray[np.float64]
    is_good: NDArray[np.bool_]


def fit_corners(image: NDArray[np.uint8], start: CornerStart) -> FeatureFit:
    """Fit `I = a + b E1 E2` around each corner by Levenberg-Marquardt, all corners at once.

    E = erf(n (x - x0) / (sqrt(2) s)) is a straight edge through x0 with the unit normal n, smoothed by a Gaussian of
    width s. At a marker's corner the factors are (1 + E) / 2. A quadrant smoothed by a Gaussian is the bivariate normal
    distribution with correlation r = n1 n2; the product is its value for r = 0, and two more terms of its series in r
    (the tetrachoric series: K. Pearson, Phil. Trans. R. Soc. A 195 (1900) 1) serve edges that do not meet at a right
    angle. Free are x0, the two normals' angles, s, a and b. The covariance is `misfit² (JᵀJ)⁻¹`. The fit is made
    twice: the second time with pixels chosen by the blur that the first one found.

    Args:
        image: (H, W) uint8.
        start: where to look.
    """
    offsets, grey = _patches(image, start)
    parameters = _start_parameters(start)
    used, _ = _used(start, parameters, offsets)
    used &= np.isfinite(grey)
    parameters[:, 5:] = _levels(parameters, offsets, np.where(used, grey, 0.0), used, start.is_saddle)
    parameters, misfit, covariance = _fitted(parameters, offsets, np.where(used, grey, 0.0), used, start.is_saddle)
    used, room_px = _used(start, parameters, offsets)
    used &= np.isfinite(grey)
    parameters, misfit, covariance = _fitted(parameters, offsets, np.where(used, grey, 0.0), used, start.is_saddle)
    moved = parameters[:, :2]
    base = np.floor(start.pixels + 0.5)
    contrast = parameters[:, 6] * (2 if start.is_saddle else 1)
    unit = np.minimum(np.linalg.norm(start.along_p, axis=1), np.linalg.norm(start.along_q, axis=1))
    is_good = (
        (used.sum(axis=1) >= 3 * _PARAMETERS)
        & (room_px > MIN_ROOM_PX)
        & np.isfinite(parameters).all(axis=1)
        & (np.linalg.norm(base + moved - start.pixels, axis=1) < np.maximum(2.0, 0.12 * unit))
        & (parameters[:, 4] < np.minimum(BLUR_LIMITS_PX[1], 0.25 * unit))
        & (np.abs(contrast) > np.maximum(8.0, MIN_CONTRAST_TO_MISFIT * misfit))
    )
    sigma = np.sqrt(np.maximum(covariance, 0) / 2)
    return FeatureFit(base + moved, sigma, parameters[:, 4], contrast, misfit, is_good)


def _patches(image: NDArray[np.uint8], start: CornerStart) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Offsets (P, 2) from each corner's nearest pixel, and grey values (N, P), NaN outside the image."""
    spread = np.abs(np.concatenate((start.along_p, start.along_q))).max(initial=0.0) * max(start.high, -start.low)
    reach = int(np.clip(math.ceil(1.5 * spread), 2, MAX_REACH_PX))
    row, column = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1)
    base = np.floor(start.pixels + 0.5).astype(int)
    columns, rows = base[:, :1] + column, base[:, 1:] + row
    height, width = image.shape
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    grey = image[np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)].astype(np.float64)
    grey[~inside] = np.nan
    return np.stack((column, row), axis=-1).astype(np.float64), grey


def _start_parameters(start: CornerStart) -> NDArray[np.float64]:
    """Rows (x0, y0, phi1, phi2, s, a, b); edge 1 runs along p with its normal towards q, edge 2 the other way round."""
    parameters = np.zeros((len(start.pixels), _PARAMETERS))
    parameters[:, :2] = start.pixels - np.floor(start.pixels + 0.5)
    for place, (edge, towards) in enumerate(((start.along_p, start.along_q), (start.along_q, start.along_p))):
        normal = np.stack((-edge[:, 1], edge[:, 0]), axis=-1)
        normal *= np.sign(np.sum(normal * towards, axis=1, keepdims=True))
        parameters[:, 2 + place] = np.arctan2(normal[:, 1], normal[:, 0])
    parameters[:, 4] = START_BLUR_PX
    return parameters


def _used(
    start: CornerStart, parameters: NDArray[np.float64], offsets: NDArray[np.float64]
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Which pixels (N, P) the model covers, two widths of the blur clear of other print, and the room for them (N,)."""
    basis = np.stack((start.along_p, start.along_q), axis=-1)
    away = offsets[None] - parameters[:, None, :2]
    uv = np.einsum("nij,npj->npi", np.linalg.pinv(basis), away)
    used = ((uv > start.low) & (uv < start.high)).all(axis=-1)
    if not math.isfinite(start.clear):
        return used, np.full(len(used), np.inf)
    # Height of the cell over each edge: pixels of distance from it per unit.
    area = np.abs(np.linalg.det(basis))
    heights = np.stack([area / np.linalg.norm(edge, axis=1) for edge in (start.along_q, start.along_p)], axis=-1)
    room_px = start.clear * heights - 2 * parameters[:, 4:5]
    distance_px = (np.abs(uv) if start.is_saddle else uv) * heights[:, None]
    used &= ~(distance_px > np.maximum(room_px, 1.0)[:, None]).all(axis=-1)
    return used, room_px.min(axis=1)


def _model(parameters: NDArray[np.float64], offsets: NDArray[np.float64], is_saddle: bool) -> NDArray[np.float64]:
    """Grey values (N, P)."""
    across, _, _ = _edges(parameters, offsets)
    edge, slope = _edge_shape(across, is_saddle)
    skew = np.cos(parameters[:, 2] - parameters[:, 3])[:, None]
    bend = slope[0] * slope[1] / 2
    shape = edge[0] * edge[1] + bend * skew * (1 + skew * across[0] * across[1])
    return np.asarray(parameters[:, None, 5] + parameters[:, None, 6] * shape)


def _model_and_slopes(
    parameters: NDArray[np.float64], offsets: NDArray[np.float64], is_saddle: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Grey values (N, P) and their derivatives (N, P, 7)."""
    across, along, normal = _edges(parameters, offsets)
    edge, slope = _edge_shape(across, is_saddle)
    turn = (parameters[:, 2] - parameters[:, 3])[:, None]
    skew, bend = np.cos(turn), slope[0] * slope[1] / 2
    both = across[0] * across[1]
    lean = bend * skew * (1 + skew * both)
    shape = edge[0] * edge[1] + lean
    b = parameters[:, None, 6]
    by_argument = [b * (slope[k] * edge[1 - k] - 2 * lean * across[k] + bend * skew**2 * across[1 - k]) for k in (0, 1)]
    by_turn = -b * np.sin(turn) * bend * (1 + 2 * skew * both)
    jacobian = np.empty((*shape.shape, _PARAMETERS))
    for axis in (0, 1):
        jacobian[..., axis] = -sum(by_argument[k] * normal[k][:, axis, None] for k in (0, 1))
    jacobian[..., 2] = by_argument[0] * along[0] + by_turn
    jacobian[..., 3] = by_argument[1] * along[1] - by_turn
    jacobian[..., 4] = -(by_argument[0] * across[0] + by_argument[1] * across[1]) / parameters[:, None, 4]
    jacobian[..., 5] = 1
    jacobian[..., 6] = shape
    return parameters[:, None, 5] + b * shape, jacobian


def _edges(
    parameters: NDArray[np.float64], offsets: NDArray[np.float64]
) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]], list[NDArray[np.float64]]]:
    """Of both edges, all over sqrt(2) s: distances from it (N, P), distances along it (N, P), its normals (N, 2)."""
    scale = 1 / (math.sqrt(2) * parameters[:, 4])
    x = offsets[None, :, 0] - parameters[:, :1]
    y = offsets[None, :, 1] - parameters[:, 1:2]
    across, along, normals = [], [], []
    for angle in (parameters[:, 2], parameters[:, 3]):
        cosine, sine = np.cos(angle) * scale, np.sin(angle) * scale
        across.append(x * cosine[:, None] + y * sine[:, None])
        along.append(y * cosine[:, None] - x * sine[:, None])
        normals.append(np.stack((cosine, sine), axis=-1))
    return across, along, normals


def _edge_shape(
    across: list[NDArray[np.float64]], is_saddle: bool
) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
    """E, from -1 to 1 at a saddle and from 0 to 1 at a marker's corner, and its slope, for both edges."""
    slopes = [2 / math.sqrt(math.pi) * np.exp(-distance * distance) for distance in across]
    if is_saddle:
        return [erf(distance) for distance in across], slopes
    return [(1 + erf(distance)) / 2 for distance in across], [slope / 2 for slope in slopes]


def _levels(
    parameters: NDArray[np.float64],
    offsets: NDArray[np.float64],
    grey: NDArray[np.float64],
    used: NDArray[np.bool_],
    is_saddle: bool,
) -> NDArray[np.float64]:
    """Best a and b (N, 2) with all else held."""
    unit = parameters.copy()
    unit[:, 5:] = (0.0, 1.0)
    shape = np.where(used, _model(unit, offsets, is_saddle), 0.0)
    count = np.maximum(used.sum(axis=1), 1)
    mean_shape, mean_grey = shape.sum(axis=1) / count, grey.sum(axis=1) / count
    variance = (shape**2).sum(axis=1) / count - mean_shape**2
    b = ((shape * grey).sum(axis=1) / count - mean_shape * mean_grey) / np.maximum(variance, 1e-9)
    return np.stack((mean_grey - b * mean_shape, b), axis=-1)


def _fitted(
    parameters: NDArray[np.float64],
    offsets: NDArray[np.float64],
    grey: NDArray[np.float64],
    used: NDArray[np.bool_],
    is_saddle: bool,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Parameters (N, 7), misfit (N,), and the sum of the variances of x0 and y0 (N,)."""
    parameters = parameters.copy()
    cost = np.full(len(parameters), np.inf)
    damping = np.full(len(parameters), 1e-2)
    active = np.arange(len(parameters))  # corners that still move
    for _ in range(ROUNDS):
        residual, jacobian = _residuals(parameters[active], offsets, grey[active], used[active], is_saddle)
        cost[active] = (residual**2).sum(axis=1)
        step = _step(jacobian, residual, damping[active])
        trial = parameters[active] + step
        trial[:, 4] = np.clip(trial[:, 4], *BLUR_LIMITS_PX)
        expected = _model(trial, offsets, is_saddle)
        better = np.where(used[active], grey[active] - expected, 0.0)
        is_better = (better**2).sum(axis=1) <= cost[active]
        parameters[active[is_better]] = trial[is_better]
        damping[active] *= np.where(is_better, 0.1, 10.0)
        moves = (np.abs(step[:, :2]).max(axis=1) > STEP_PX) & (damping[active] < 1e4)
        active = active[moves]
        if len(active) == 0:
            break
    residual, jacobian = _residuals(parameters, offsets, grey, used, is_saddle)
    cost = (residual**2).sum(axis=1)
    freedom = np.maximum(used.sum(axis=1) - _PARAMETERS, 1)
    variance = cost / freedom
    normal_matrix = jacobian.transpose(0, 2, 1) @ jacobian
    inverse = np.linalg.pinv(normal_matrix, hermitian=True)
    return parameters, np.sqrt(variance), variance * (inverse[:, 0, 0] + inverse[:, 1, 1])


def _residuals(
    parameters: NDArray[np.float64],
    offsets: NDArray[np.float64],
    grey: NDArray[np.float64],
    used: NDArray[np.bool_],
    is_saddle: bool,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What the model leaves (N, P) and its derivatives (N, P, 7), zero where a pixel is not used."""
    expected, jacobian = _model_and_slopes(parameters, offsets, is_saddle)
    return np.where(used, grey - expected, 0.0), jacobian * used[..., None]


def _step(
    jacobian: NDArray[np.float64], residual: NDArray[np.float64], damping: NDArray[np.float64]
) -> NDArray[np.float64]:
    normal_matrix = jacobian.transpose(0, 2, 1) @ jacobian
    diagonal = np.einsum("nii->ni", normal_matrix)
    normal_matrix = normal_matrix + (damping[:, None] * diagonal + 1e-9)[..., None] * np.eye(_PARAMETERS)
    gradient = jacobian.transpose(0, 2, 1) @ residual[..., None]
    return np.asarray(np.linalg.solve(normal_matrix, gradient)[..., 0])
