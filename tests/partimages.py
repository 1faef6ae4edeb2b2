"""A small data set in MVTec 3D-AD layout, drawn on the fly: a notched plate with ridges and bores that turns freely."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray

from depthcell.models.mvtec3d import Scan

SIDE_PX = 112
PIXEL_M = 0.00025
DISTANCE_M = 0.6


@dataclass(frozen=True)
class Part:
    """One drawn part: what the sensor sees, and where the defect is."""

    scan: Scan
    mask: NDArray[np.bool_]


def draw_part(rng: np.random.Generator, defect: str = "good") -> Part:
    """`defect`: "good"; "dent", 1.5 mm deep and of no colour; "scratch", of colour alone; "hole", of both."""
    angle, centre = rng.uniform(0, 2 * np.pi), SIDE_PX / 2 + rng.uniform(-3, 3, 2)
    rows, columns = np.indices((SIDE_PX, SIDE_PX)) - centre[:, None, None]
    u = columns * np.cos(angle) + rows * np.sin(angle)  # in the plate's own axes, pixels
    v = rows * np.cos(angle) - columns * np.sin(angle)
    plate = (np.abs(u) < 32) & (np.abs(v) < 20) & ~((u > 20) & (v > 8))
    bores = (np.hypot(u + 20, v) < 5) | (np.hypot(u - 4, v + 10) < 4)
    ridges = 0.5 * (1 + np.sin(u * 2 * np.pi / 8)) * (v > 2)
    height_mm = np.where(plate & ~bores, 8 + 0.8 * ridges, 0.0)
    grey = np.where(plate & ~bores, 140 + 40 * ridges, 18.0)

    spot = np.hypot(u - rng.uniform(-6, 8), v - rng.uniform(-4, 4))
    mask = np.zeros_like(plate)
    if defect == "dent":
        mask = (spot < 5) & plate
        height_mm -= 1.5 * np.clip(1 - spot / 5, 0, 1) * plate
    elif defect == "scratch":
        mask = (spot < 7) & (np.abs(u - v - rng.uniform(-2, 2)) < 2) & plate & ~bores
        grey = np.where(mask, 60.0, grey)
    elif defect == "hole":
        mask = (spot < 4) & plate & ~bores
        height_mm, grey = np.where(mask, 1.0, height_mm), np.where(mask, 30.0, grey)

    grey = cv2.GaussianBlur(grey, (0, 0), 0.7) + rng.normal(0, 1.5, grey.shape)
    z = DISTANCE_M - 1e-3 * (height_mm + rng.normal(0, 0.03, grey.shape)) + 0.05 * PIXEL_M * np.indices(grey.shape)[0]
    y, x = (np.indices(grey.shape) - SIDE_PX / 2) * PIXEL_M
    xyz = np.stack((x, y, z), axis=2).astype(np.float32)
    xyz[rng.random(grey.shape) < 0.03] = np.nan
    rgb = np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, axis=2)
    return Part(Scan(f"drawn {defect}", rgb, xyz), mask)


def write_part(folder: Path, name: str, part: Part, *, with_mask: bool) -> None:
    """Write one part's files below `folder`/{rgb,xyz,gt}."""
    for kind in ("rgb", "xyz", "gt")[: 3 if with_mask else 2]:
        (folder / kind).mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / "rgb" / f"{name}.png"), part.scan.rgb[..., ::-1])
    tifffile.imwrite(folder / "xyz" / f"{name}.tiff", np.nan_to_num(part.scan.xyz_cam), photometric="rgb")
    if with_mask:
        cv2.imwrite(str(folder / "gt" / f"{name}.png"), part.mask.astype(np.uint8) * 255)


def write_data_set(root: Path, counts: dict[str, int], seed: int = 0) -> Path:
    """Write a data set with `counts` parts in each folder, such as {"train/good": 8, "test/dent": 2}."""
    rng = np.random.default_rng(seed)
    for folder, count in counts.items():
        split, kind = folder.split("/")
        for index in range(count):
            write_part(root / folder, f"{index:03}", draw_part(rng, kind), with_mask=split == "test")
    return root
