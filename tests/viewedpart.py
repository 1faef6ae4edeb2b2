"""Clouds of parts as three cameras would measure them, made directly: exact surface, what is hidden left out, noise."""

from dataclasses import fields

import numpy as np

from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.simulator.rig import looking_at
from depthcell.acquisition.simulator.terraces import Terrace, circle, flat, rectangle, terraced_solid
from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.cell import Cell, CellCamera, DisparityNoise
from depthcell.fusion.partcloud import PartCloud
from depthcell.fusion.reference import Reference

CENTRE_M = np.array([0.0, 0.0, 0.05])
EYES_M = ((0.2, 0.05, 0.35), (-0.15, 0.15, 0.35), (-0.02, -0.2, 0.35))
SIGMA_M = 8e-5
LENS = Intrinsics(640, 480, 600.0, 600.0, 319.5, 239.5)


def step_reference() -> Reference:
    """A block with a step, a boss and a bore, alike itself in no other pose."""
    mesh = terraced_solid(
        [
            Terrace(rectangle((0.0, 0.0), (70.0, 50.0), corner_mm=2.0), flat(10.0)),
            Terrace(rectangle((-20.0, 0.0), (30.0, 50.0), corner_mm=2.0), flat(30.0)),
            Terrace(circle((18.0, 10.0), 16.0), flat(18.0)),
            Terrace(circle((18.0, -12.0), 10.0), None),
        ],
        spacing_mm=2.0,
    )
    return Reference(mesh.vertices_m, mesh.triangles)


def viewing_cell() -> Cell:
    """Three cameras around `CENTRE_M`."""
    cameras = {
        f"C{number}": CellCamera(
            serial=f"C{number}",
            model="test",
            depth=LENS,
            color=None,
            T_cell_depth=looking_at(f"C{number}", CENTRE_M, np.array(eye)),
            covariance=np.diag(np.array([1e-4] * 3 + [3e-5] * 3) ** 2),
            T_color_depth=None,
            baseline_m=0.05,
            noise=DisparityNoise(0.05, 0.0, 0.0),
        )
        for number, eye in enumerate(EYES_M)
    }
    return Cell("viewing cell", cameras, "2026-01-01T00:00:00Z")


def viewed(reference: Reference, T_cell_part: RigidTransform, seed: int, spacing_m: float = 1.2e-3) -> PartCloud:
    """What the cameras see of a part: its own shadows left out, surfaces flatter than 70 degrees too."""
    samples, rng = reference.surface_samples(spacing_m), np.random.default_rng(seed)
    seen = np.zeros(len(samples.points_part), bool)
    for eye in EYES_M:
        eye_part = T_cell_part.inverse() @ np.array(eye)
        ray = eye_part - samples.points_part
        steep = np.einsum("ij,ij->i", ray, samples.normals_part) > 0.34 * np.linalg.norm(ray, axis=1)
        seen |= steep & reference.visible(samples.points_part, samples.normals_part, eye_part)
    normals = T_cell_part.rotate(samples.normals_part[seen].astype(np.float64))
    points = np.asarray(T_cell_part @ samples.points_part[seen], np.float64)
    return cloud_of(points + rng.normal(0, SIGMA_M, len(points))[:, None] * normals, normals)


def ground(half_m: float, height_m: float = 0.0, hidden_by: PartCloud | None = None) -> PartCloud:
    """A level plate about the cell's origin, less what lies below a part."""
    x, y = np.meshgrid(*[np.arange(-half_m, half_m, 1.2e-3)] * 2)
    points = np.column_stack((x.ravel(), y.ravel(), np.full(x.size, height_m)))
    if hidden_by is not None:
        lower, upper = hidden_by.points_cell[:, :2].min(axis=0), hidden_by.points_cell[:, :2].max(axis=0)
        points = points[~((points[:, :2] > lower) & (points[:, :2] < upper)).all(axis=1)]
    return cloud_of(points, np.tile([0.0, 0.0, 1.0], (len(points), 1)))


def cloud_of(points_cell: np.ndarray, normals_cell: np.ndarray) -> PartCloud:
    """Points and normals as a cloud of the first camera's."""
    count = len(points_cell)
    return PartCloud(
        points_cell=np.asarray(points_cell, np.float64),
        normals_cell=normals_cell.astype(np.float32),
        colors=np.zeros((count, 3), np.uint8),
        random_sigma_m=np.full(count, SIGMA_M, np.float32),
        systematic_sigma_m=np.full(count, 1e-5, np.float32),
        correlation_m=np.zeros(count, np.float32),
        share=np.tile(np.array([1, 0, 0], np.float32), (count, 1)),
        camera=np.zeros(count, np.uint8),
        pixel=np.zeros((count, 2), np.int32),
        serials=("C0", "C1", "C2"),
    )


def together(*clouds: PartCloud) -> PartCloud:
    """Several clouds as one."""
    names = [field.name for field in fields(PartCloud) if field.name != "serials"]
    columns = {name: np.concatenate([getattr(cloud, name) for cloud in clouds]) for name in names}
    return PartCloud(serials=clouds[0].serials, **columns)
