"""Part clouds as files that other programs open: PLY, PCD, E57. Each point keeps its uncertainty as scalar fields."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from depthcell.errors import DepthcellError
from depthcell.files import written_beside
from depthcell.fusion.partcloud import PartCloud

CLOUD_ENDINGS = (".ply", ".pcd", ".e57")
_PLY_TYPES = {"<f4": "float", "u1": "uchar", "<i4": "int"}
_PCD_TYPES = {"<f4": ("4", "F"), "<u4": ("4", "U"), "u1": ("1", "U"), "<i4": ("4", "I")}


@dataclass(frozen=True, slots=True, eq=False)
class CloudColumns:
    """A cloud's numbers as columns (N,) by name, in the order in which files write them.

    x y z in metres and nx ny nz, frame "cell"; red green blue; random_sigma, systematic_sigma and correlation in
    metres; camera (index into the serial numbers); row and column of its depth image.
    """

    by_name: dict[str, NDArray[np.generic]]

    @classmethod
    def of(cls, cloud: PartCloud) -> "CloudColumns":
        """Lengths in single precision: 0.06 um at 1 m."""
        points, normals = cloud.points_cell.astype("<f4"), cloud.normals_cell.astype("<f4")
        columns: dict[str, NDArray[np.generic]] = {name: points[:, i] for i, name in enumerate("xyz")}
        columns |= {f"n{name}": normals[:, i] for i, name in enumerate("xyz")}
        columns |= {name: cloud.colors[:, i] for i, name in enumerate(("red", "green", "blue"))}
        columns["random_sigma"] = cloud.random_sigma_m.astype("<f4")
        columns["systematic_sigma"] = cloud.systematic_sigma_m.astype("<f4")
        columns["correlation"] = cloud.correlation_m.astype("<f4")
        columns["camera"] = cloud.camera
        columns |= {name: cloud.pixel[:, i].astype("<i4") for i, name in enumerate(("row", "column"))}
        return cls(columns)

    def packed(self, names: dict[str, str] | None = None) -> NDArray[np.void]:
        """All columns as records (N,), some under other names."""
        called = {name: (names or {}).get(name, name) for name in self.by_name}
        records = np.empty(
            len(self.by_name["x"]), dtype=[(called[name], column.dtype) for name, column in self.by_name.items()]
        )
        for name, column in self.by_name.items():
            records[called[name]] = column
        return records


def write_cloud(path: Path, cloud: PartCloud) -> None:
    """Write a cloud in the format that the ending of `path` names, whole or not at all.

    Raises:
        DepthcellError: the ending is none of `CLOUD_ENDINGS`, or the library for E57 is missing.
    """
    match path.suffix.lower():
        case ".ply":
            write_ply(path, cloud)
        case ".pcd":
            write_pcd(path, cloud)
        case ".e57":
            from depthcell.fusion.e57_file import write_e57  # noqa: PLC0415 - its library is optional

            write_e57(path, cloud)
        case _:
            raise unknown_ending(path, CLOUD_ENDINGS)


def unknown_ending(path: Path, known: tuple[str, ...]) -> DepthcellError:
    """The refusal of a file whose ending names no format that can be written."""
    return DepthcellError(f"{path}: its ending '{path.suffix}' names no format; choose one of {', '.join(known)}")


def write_ply(path: Path, cloud: PartCloud) -> None:
    """Write a cloud as binary little-endian PLY, whole or not at all: the columns of `CloudColumns` per vertex.

    The serial numbers stand in the header as comments.
    """
    vertices = CloudColumns.of(cloud).packed()
    assert vertices.dtype.names is not None  # noqa: S101 - records have names; tells the type checker
    header = [
        "ply",
        "format binary_little_endian 1.0",
        "comment depthcell part cloud, metres, frame cell",
        *(f"comment camera {index} {serial}" for index, serial in enumerate(cloud.serials)),
        f"element vertex {len(cloud)}",
        *(f"property {_PLY_TYPES[_kind(vertices.dtype[name])]} {name}" for name in vertices.dtype.names),
        "end_header\n",
    ]
    with written_beside(path) as partial:
        partial.write_bytes("\n".join(header).encode("ascii") + vertices.tobytes())


def write_pcd(path: Path, cloud: PartCloud) -> None:
    """Write a cloud as binary PCD 0.7, whole or not at all.

    The columns are those of `CloudColumns`, under the names that the Point Cloud Library reads: normal_x and so on,
    and one `rgb` that holds the three colours as 0x00RRGGBB. The serial numbers stand in the header as comments.
    """
    columns = dict(CloudColumns.of(cloud).by_name)
    red, green, blue = (columns.pop(name).astype("<u4") for name in ("red", "green", "blue"))
    columns["rgb"] = (red << 16) | (green << 8) | blue
    points = CloudColumns(columns).packed({f"n{name}": f"normal_{name}" for name in "xyz"})
    assert points.dtype.names is not None  # noqa: S101 - records have names; tells the type checker
    kinds = [_PCD_TYPES[_kind(points.dtype[name])] for name in points.dtype.names]
    header = [
        "# .PCD v0.7 - Point Cloud Data file format",
        "# depthcell part cloud, metres, frame cell",
        *(f"# camera {index} {serial}" for index, serial in enumerate(cloud.serials)),
        "VERSION 0.7",
        "FIELDS " + " ".join(points.dtype.names),
        "SIZE " + " ".join(size for size, _ in kinds),
        "TYPE " + " ".join(kind for _, kind in kinds),
        "COUNT " + " ".join("1" for _ in kinds),
        f"WIDTH {len(cloud)}",
        "HEIGHT 1",
        "VIEWPOINT 0 0 0 1 0 0 0",
        f"POINTS {len(cloud)}",
        "DATA binary\n",
    ]
    with written_beside(path) as partial:
        partial.write_bytes("\n".join(header).encode("ascii") + points.tobytes())


def _kind(dtype: np.dtype[np.generic]) -> str:
    return "u1" if dtype == np.uint8 else "<" + dtype.str[1:]
