"""From the adjustment's parameters to those of a cell, and their covariance (GUM 5.2.2; JCGM 102, 6.2.1.3)."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import FloatArray, RigidTransform
from depthcell.calib.cell import POSE_NAMES, CellCamera, DisparityNoise, lens_names
from depthcell.calib.depthcorrection import DepthCorrection
from depthcell.errors import DepthcellError

if TYPE_CHECKING:
    from depthcell.calib.adjustment.bundle import BundleSolution


def public_correction(
    depth: FloatArray, wave_shape: tuple[int, int], focal_ratio: float
) -> tuple[DepthCorrection, NDArray[np.float64], NDArray[np.float64]]:
    """The correction for disparities counted with the refined focal length, and its derivatives.

    The adjustment fits `z = s F / (d + o + c (d / 126)² + W)` with `d = F / z_read` and F of the start. With `F' = k F`
    disparities become `d' = k d`, and the same z needs `s' = s`, `o' = k o`, `W' = k W` and `c' = c / k`.

    Args:
        depth: (3 + waves,), scale, offset, curvature, waves as fitted.
        wave_shape: rows and columns of the wave's table.
        focal_ratio: k, refined fx over that of the start.

    Returns:
        The correction; its derivatives by `depth`, (3 + waves,) on the diagonal; and by k, (3 + waves,).
    """
    k = focal_ratio
    by_depth = np.full(len(depth), k)
    by_depth[0], by_depth[2] = 1.0, 1 / k
    by_ratio = np.array(depth, dtype=np.float64)
    by_ratio[0], by_ratio[2] = 0.0, -depth[2] / k**2
    values = [float(value) for value in by_depth * depth]
    table = [0.0, *values[3:]]
    rows, columns = wave_shape
    wave = tuple(tuple(table[row * columns : (row + 1) * columns]) for row in range(rows)) if len(table) > 1 else ()
    return DepthCorrection(values[0], values[1], values[2], wave), by_depth, by_ratio


def cell_covariance(solution: "BundleSolution", serials: Sequence[str]) -> NDArray[np.float64]:
    """Joint covariance of depth cameras, in the order of `Cell.covariance` and `CellCamera.parameter_names`.

    What was held, a lens or a correction without any depth, stands in it with zeros.

    Args:
        solution: of the adjustment.
        serials: the cameras, in the cell's order.
    """
    names: list[str] = []
    for serial in serials:
        stream = _known(solution, f"depth:{serial}")
        correction = solution.corrections.get(serial, DepthCorrection())
        own = (*POSE_NAMES, *lens_names(solution.streams[stream]), *correction.parameter_names)
        names.extend(f"{stream}.{name}" for name in own)
    return solution.covariance_of(names)


def color_transform(solution: "BundleSolution", serial: str) -> RigidTransform:
    """`T_color_depth` of a camera, from its two streams' poses."""
    T_cell_color = solution.T_cell_stream[_known(solution, f"color:{serial}")]
    return T_cell_color.inverse() @ solution.T_cell_stream[_known(solution, f"depth:{serial}")]


def color_covariance(solution: "BundleSolution", serial: str) -> NDArray[np.float64]:
    """Covariance of `CellCamera.color_parameter_names`: `T_color_depth` and the colour lens.

    With `T_cell_color` moved by xi_c and `T_cell_depth` by xi_d in the cell, `T_color_depth` moves by
    `Ad(T_color_cell) (xi_d - xi_c)`, Ad being the adjoint of a rigid motion, rotation before translation.
    """
    depth, color = _known(solution, f"depth:{serial}"), _known(solution, f"color:{serial}")
    adjoint = adjoint_of(solution.T_cell_stream[color].inverse())
    lens = lens_names(solution.streams[color])
    names = [f"{stream}.{name}" for stream in (depth, color) for name in POSE_NAMES]
    joint = solution.covariance_of([*names, *(f"{color}.{name}" for name in lens)])
    slope = np.zeros((6 + len(lens), len(joint)))
    slope[:6, :6], slope[:6, 6:12] = adjoint, -adjoint
    slope[6:, 12:] = np.eye(len(lens))
    return np.asarray(slope @ joint @ slope.T)


def cell_camera(
    solution: "BundleSolution", serial: str, model: str, baseline_m: float, noise: DisparityNoise
) -> CellCamera:
    """One camera of a cell as the adjustment found it, with its covariances."""
    color = solution.streams.get(f"color:{serial}")
    return CellCamera(
        serial=serial,
        model=model,
        depth=solution.streams[_known(solution, f"depth:{serial}")],
        color=color,
        T_cell_depth=solution.T_cell_stream[f"depth:{serial}"],
        covariance=cell_covariance(solution, [serial]),
        T_color_depth=None if color is None else color_transform(solution, serial),
        baseline_m=baseline_m,
        noise=noise,
        correction=solution.corrections.get(serial, DepthCorrection()),
        color_covariance=None if color is None else color_covariance(solution, serial),
    )


def adjoint_of(transform: RigidTransform) -> NDArray[np.float64]:
    """(6, 6): a small motion of the source frame, (rotation, translation) as in `perturbed`, told in the target."""
    adjoint = np.zeros((6, 6))
    adjoint[:3, :3] = adjoint[3:, 3:] = transform.rotation
    x, y, z = transform.translation_m
    adjoint[3:, :3] = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ transform.rotation
    return adjoint


def picked(names: Mapping[str, int], covariance: NDArray[np.float64], wanted: Sequence[str]) -> NDArray[np.float64]:
    """The part of `covariance` that concerns `wanted`; what it does not know is exact: zeros."""
    places = np.array([names.get(name, -1) for name in wanted])
    out = np.zeros((len(wanted), len(wanted)))
    known = np.flatnonzero(places >= 0)
    out[np.ix_(known, known)] = covariance[np.ix_(places[known], places[known])]
    return out


def _known(solution: "BundleSolution", stream: str) -> str:
    if stream not in solution.streams:
        raise DepthcellError(f"adjustment: {stream} was not part of it; known: {', '.join(solution.streams)}")
    return stream
