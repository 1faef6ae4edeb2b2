"""Part clouds as PLY files that any viewer opens."""

from pathlib import Path

import numpy as np

from depthcell.files import written_beside
from depthcell.fusion.partcloud import PartCloud

_PLY_TYPES = {"<f4": "float", "u1": "uchar", "<i4": "int"}


def write_ply(path: Path, cloud: PartCloud) -> None:
    """Write a cloud as binary little-endian PLY, whole or not at all.

    Per vertex: x y z in metres and nx ny nz, frame "cell"; red green blue; random_sigma, systematic_sigma and
    correlation in metres; camera (index into the serial numbers, which stand in the header as comments); row and
    column of its depth image. Coordinates are single precision: 0.06 um at 1 m.
    """
    columns = (
        (("x", "y", "z"), "<f4", cloud.points_cell),
        (("nx", "ny", "nz"), "<f4", cloud.normals_cell),
        (("red", "green", "blue"), "u1", cloud.colors),
        (("random_sigma",), "<f4", cloud.random_sigma_m[:, None]),
        (("systematic_sigma",), "<f4", cloud.systematic_sigma_m[:, None]),
        (("correlation",), "<f4", cloud.correlation_m[:, None]),
        (("camera",), "u1", cloud.camera[:, None]),
        (("row", "column"), "<i4", cloud.pixel),
    )
    fields = [(name, kind) for names, kind, _ in columns for name in names]
    vertices = np.empty(len(cloud), dtype=fields)
    for names, _, values in columns:
        for index, name in enumerate(names):
            vertices[name] = values[:, index]
    header = [
        "ply",
        "format binary_little_endian 1.0",
        "comment depthcell part cloud, metres, frame cell",
        *(f"comment camera {index} {serial}" for index, serial in enumerate(cloud.serials)),
        f"element vertex {len(cloud)}",
        *(f"property {_PLY_TYPES[kind]} {name}" for name, kind in fields),
        "end_header\n",
    ]
    with written_beside(path) as partial:
        partial.write_bytes("\n".join(header).encode("ascii") + vertices.tobytes())
