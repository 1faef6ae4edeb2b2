"""Scans made straight from a mesh: what a cell's cameras would see of it, erring as the cell says that they err.

Quicker than recordings by far, and true to the letter of the cell: every parameter of its cameras is off by a draw from
its covariance, and depth carries noise of its noise model, correlated over the image. What a cell does not state, such
as matching windows, rounding and subpixel staircases, is left to `acquisition.simulator`. So stated uncertainties can
be tested on hundreds of parts.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.simulator.partmesh import PartMesh
from depthcell.acquisition.simulator.scene import Scene
from depthcell.acquisition.simulator.stereo import correlated_noise
from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.adjustment.lens import lens_from_vector
from depthcell.calib.cell import Cell, CellCamera, lens_names
from depthcell.calib.depthcorrection import DepthCorrection
from depthcell.calib.propagation import read_disparity_px
from depthcell.fusion.merge import merge_views
from depthcell.fusion.partcloud import PartCloud
from depthcell.fusion.region import Region, image_window
from depthcell.fusion.temporal import MeanDepth
from depthcell.fusion.view import View, ViewSettings, build_view

FINE_M = 1e-7
"""A count of depth so small that rounding does nothing."""
MARGIN_PX = 12


@dataclass(frozen=True, slots=True, eq=False)
class ScanConditions:
    """How parts are looked at.

    Attributes:
        cell: as its file states it.
        region: box that holds the part.
        frames: averaged.
    """

    cell: Cell
    region: Region
    frames: int = 8


def drawn_cell(cell: Cell, rng: np.random.Generator) -> Cell:
    """A cell as it may truly stand: the parameters of `cell`, off by a draw from their joint covariance."""
    joint = cell.joint_covariance
    scale = np.sqrt(np.maximum(np.diag(joint), 1e-300))
    values, vectors = np.linalg.eigh(joint / np.outer(scale, scale))
    off = scale * (vectors @ (np.sqrt(np.maximum(values, 0)) * rng.standard_normal(len(values))))
    return cell_off_by(cell, off)


def cell_off_by(cell: Cell, off: NDArray[np.float64]) -> Cell:
    """The cell with `off` (sum P,) added to its parameters, in the order of `Cell.joint_covariance`."""
    cameras = {serial: camera_off_by(camera, off[cell.rows_of(serial)]) for serial, camera in cell.cameras.items()}
    return replace(cell, cameras=cameras)


def camera_off_by(camera: CellCamera, off: NDArray[np.float64]) -> CellCamera:
    """A camera with `off` (P,) added to its parameters, in the order of `parameter_names`."""
    lens_count, correction = len(lens_names(camera.depth)), camera.correction
    pinhole = (camera.depth.fx_px, camera.depth.fy_px, camera.depth.cx_px, camera.depth.cy_px)
    lens = np.array((*pinhole, *camera.depth.coefficients))
    lens[:lens_count] += off[6 : 6 + lens_count]
    scale, offset_px, curvature_px, *waves = off[6 + lens_count :]
    table = np.array(correction.wave_px)
    if table.size:
        table += np.array((0.0, *waves)).reshape(table.shape)
    return replace(
        camera,
        T_cell_depth=camera.T_cell_depth.perturbed(off[:6]),
        depth=lens_from_vector(lens, camera.depth),
        correction=DepthCorrection(
            scale=correction.scale + float(scale),
            disparity_offset_px=correction.disparity_offset_px + float(offset_px),
            curvature_px=correction.curvature_px + float(curvature_px),
            wave_px=tuple(map(tuple, table.tolist())),
        ),
    )


def scan_cloud(
    mesh: PartMesh, T_cell_part: RigidTransform, true: Cell, conditions: ScanConditions, rng: np.random.Generator
) -> PartCloud:
    """What the cameras, standing as `true` says, give of a part; worked out with the stated cell.

    Args:
        mesh: the part as it is.
        T_cell_part: where it lies.
        true: the cell as it stands, see `drawn_cell`.
        conditions: the stated cell, and how it looks.
        rng: of the noise.
    """
    scene = Scene(mesh, T_cell_part)
    views = [_view(scene, camera, conditions, rng) for camera in true.cameras.values()]
    return merge_views(views, conditions.cell)


def _view(scene: Scene, true: CellCamera, conditions: ScanConditions, rng: np.random.Generator) -> View:
    stated, frames = conditions.cell.camera(true.serial), conditions.frames
    window = image_window(conditions.region, stated.depth, stated.T_cell_depth.inverse(), MARGIN_PX)
    if window is None:
        raise ValueError(f"camera {true.serial}: does not see into the region")
    depth_m = scene.view(true.T_cell_depth, window.intrinsics(true.depth)).depth_m.astype(np.float64)
    rows, columns = np.mgrid[window.top : window.bottom, window.left : window.right]
    pixels = np.stack((columns.ravel(), rows.ravel()), axis=1).astype(np.float64)
    disparity_px = read_disparity_px(true, pixels, depth_m.ravel()).reshape(depth_m.shape)
    noise_px = np.hypot(true.noise.temporal_px / np.sqrt(frames), true.noise.fixed_px)
    disparity_px += noise_px * correlated_noise(depth_m.shape, true.noise.correlation_px, rng)
    read_m = (true.focal_baseline_m / disparity_px).astype(np.float32)
    mean = MeanDepth(
        mean_m=read_m,
        sigma_m=stated.depth_sigma_m(read_m, stated.noise.temporal_px).astype(np.float32),
        count=np.where(np.isfinite(read_m), frames, 0).astype(np.uint16),
        frames=frames,
        units_m=FINE_M,
        window=window,
    )
    return build_view(stated, mean, None, ViewSettings(region=conditions.region))
