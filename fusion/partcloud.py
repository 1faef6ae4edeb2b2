"""What the fusion room hands on: one point cloud of the part in the cell frame, each point with its uncertainty."""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from depthcell.errors import DepthcellError


@dataclass(frozen=True, slots=True, eq=False)
class PartCloud:
    """N points of a part.

    Attributes:
        points_cell: (N, 3) float64, metres, frame "cell".
        normals_cell: (N, 3) float32, unit length, pointing out of the material towards the camera.
        colors: (N, 3) uint8 red, green, blue; 0 where no colour camera saw the point.
        random_sigma_m: (N,) float32, standard uncertainty along the normal from noise, which neighbours share only
            over `correlation_m`.
        systematic_sigma_m: (N,) float32, standard uncertainty along the normal from calibration, shared by all points
            of a camera: it does not shrink by averaging points.
        correlation_m: (N,) float32, distance over which the noise of neighbours is correlated (1/e).
        share: (N, K) float32, weight of each of the K cameras in the point; rows sum to 1. An error e_k that camera k
            makes along the normal shifts the point by `sum share_k e_k`.
        camera: (N,) uint8, index into `serials` of the camera that resolves the point best.
        pixel: (N, 2) int32, (row, column) in that camera's depth image.
        serials: serial numbers of the cameras.
    """

    points_cell: NDArray[np.float64]
    normals_cell: NDArray[np.float32]
    colors: NDArray[np.uint8]
    random_sigma_m: NDArray[np.float32]
    systematic_sigma_m: NDArray[np.float32]
    correlation_m: NDArray[np.float32]
    share: NDArray[np.float32]
    camera: NDArray[np.uint8]
    pixel: NDArray[np.int32]
    serials: tuple[str, ...]

    def __post_init__(self) -> None:
        count = len(self.points_cell)
        widths = {"points_cell": 3, "normals_cell": 3, "colors": 3, "pixel": 2, "share": len(self.serials)}
        for field in fields(self):
            if field.name == "serials":
                continue
            expected = (count, widths[field.name]) if field.name in widths else (count,)
            actual = getattr(self, field.name).shape
            if actual != expected:
                raise DepthcellError(f"part cloud: {field.name} needs shape {expected}, got {actual}")
        if not np.isfinite(self.points_cell).all():
            raise DepthcellError("part cloud: points_cell holds a value that is not finite")
        if count and not (self.random_sigma_m > 0).all():
            raise DepthcellError("part cloud: random_sigma_m must be positive; no measurement is exact")

    def __len__(self) -> int:
        return len(self.points_cell)

    @property
    def sigma_m(self) -> NDArray[np.float32]:
        """(N,) combined standard uncertainty along the normal, metres (GUM 5.1.2: root sum of squares)."""
        return np.hypot(self.random_sigma_m, self.systematic_sigma_m)

    def __getitem__(self, chosen: NDArray[np.bool_] | NDArray[np.intp]) -> "PartCloud":
        """The points that a boolean mask or an index array (N,) chooses."""
        # `take` by number is several times faster on rows than indexing, by mask or by number.
        numbers = np.flatnonzero(chosen) if chosen.dtype == np.bool_ else chosen
        columns = {f.name: getattr(self, f.name).take(numbers, axis=0) for f in fields(self) if f.name != "serials"}
        return PartCloud(serials=self.serials, **columns)
