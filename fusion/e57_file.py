"""Part clouds as E57 (ASTM E2807) files, which surveying and metrology programs exchange."""

import importlib
import uuid
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthcell.errors import DepthcellError
from depthcell.files import written_beside
from depthcell.fusion.cloud_file import CloudColumns
from depthcell.fusion.partcloud import PartCloud

NORMALS_URI = "http://www.libe57.org/E57_NOR_surface_normals.txt"
"""Of the extension `nor`, as the programs that write it name it."""
OWN_PREFIX, OWN_URI = "depthcell", "urn:depthcell:e57:uncertainty:1"
ELEMENTS = {
    "x": "cartesianX",
    "y": "cartesianY",
    "z": "cartesianZ",
    "nx": "nor:normalX",
    "ny": "nor:normalY",
    "nz": "nor:normalZ",
    "red": "colorRed",
    "green": "colorGreen",
    "blue": "colorBlue",
    "random_sigma": f"{OWN_PREFIX}:randomSigma",
    "systematic_sigma": f"{OWN_PREFIX}:systematicSigma",
    "correlation": f"{OWN_PREFIX}:correlation",
    "camera": f"{OWN_PREFIX}:camera",
    "row": f"{OWN_PREFIX}:row",
    "column": f"{OWN_PREFIX}:column",
}
"""Columns of a cloud, and the point elements that hold them."""


def write_e57(path: Path, cloud: PartCloud) -> None:
    """Write a cloud as one scan of an E57 file, whole or not at all.

    Lengths are in metres, single precision. Normals are elements of the extension `nor`. The standard has no element
    for uncertainty, so random and systematic sigma, correlation, camera, row and column are elements of an extension
    of our own, declared in the file; a reader that does not know it reads the rest.

    Raises:
        DepthcellError: pye57 is missing.
    """
    pye57 = _pye57()
    columns = {ELEMENTS[name]: column for name, column in CloudColumns.of(cloud).by_name.items()}
    with written_beside(path) as partial:
        partial.unlink(missing_ok=True)
        with pye57.E57(str(partial), mode="w") as file:
            _write_scan(pye57.libe57, file, cloud, columns)


def read_e57_columns(path: Path) -> dict[str, NDArray[np.generic]]:
    """The columns (N,) by name of the first scan of a file that `write_e57` wrote.

    Raises:
        DepthcellError: pye57 is missing, or the file is no E57 file or lacks a column.
    """
    pye57 = _pye57()
    try:
        file = pye57.E57(str(path), mode="r")
    except Exception as error:
        raise DepthcellError(f"{path}: cannot be read as E57 ({str(error).splitlines()[0]})") from error
    with file:
        points = file.data3d[0]["points"]
        columns: dict[str, NDArray[np.generic]] = {}
        buffers = pye57.libe57.VectorSourceDestBuffer()
        there = set(file.get_header(0).point_fields)
        for name, element in ELEMENTS.items():
            if element not in there:
                raise DepthcellError(f"{path}: its points have no element {element}; it was written by another program")
            columns[name] = np.empty(points.childCount(), _read_kind(name))
            buffers.append(_buffer(pye57.libe57, file.image_file, element, columns[name]))
        if points.childCount():
            reader = points.reader(buffers)
            reader.read()
            reader.close()
        return columns


def _pye57() -> Any:
    try:
        return importlib.import_module("pye57")
    except ImportError as error:
        raise DepthcellError(f"E57 files need pye57 ({error}); install it with: pip install pye57") from error


def _write_scan(libe57: Any, file: Any, cloud: PartCloud, columns: dict[str, NDArray[np.generic]]) -> None:
    image = file.image_file
    image.extensionsAdd("nor", NORMALS_URI)
    image.extensionsAdd(OWN_PREFIX, OWN_URI)
    scan = libe57.StructureNode(image)
    scan.set("guid", libe57.StringNode(image, f"{{{uuid.uuid4()}}}"))
    scan.set("name", libe57.StringNode(image, "depthcell part cloud"))
    cameras = ", ".join(f"{index}: {serial}" for index, serial in enumerate(cloud.serials))
    scan.set("description", libe57.StringNode(image, f"frame cell, metres; cameras {cameras}"))
    _set_limits(libe57, image, scan, columns)
    prototype = libe57.StructureNode(image)
    for element, column in columns.items():
        prototype.set(element, _element(libe57, image, column))
    points = libe57.CompressedVectorNode(image, prototype, libe57.VectorNode(image, True))
    scan.set("points", points)
    file.data3d.append(scan)
    buffers = libe57.VectorSourceDestBuffer()
    held = {element: np.ascontiguousarray(column, _held_kind(column)) for element, column in columns.items()}
    for element, column in held.items():
        buffers.append(_buffer(libe57, image, element, column))
    writer = points.writer(buffers)
    if len(cloud):
        writer.write(len(cloud))
    writer.close()


def _set_limits(libe57: Any, image: Any, scan: Any, columns: dict[str, NDArray[np.generic]]) -> None:
    """Bounds of the coordinates, where there are any, and of colours."""
    bounds, limits = libe57.StructureNode(image), libe57.StructureNode(image)
    for axis in "xyz":
        column = columns[ELEMENTS[axis]]
        if len(column):
            bounds.set(f"{axis}Minimum", libe57.FloatNode(image, float(column.min())))
            bounds.set(f"{axis}Maximum", libe57.FloatNode(image, float(column.max())))
    for color in ("Red", "Green", "Blue"):
        limits.set(f"color{color}Minimum", libe57.IntegerNode(image, 0))
        limits.set(f"color{color}Maximum", libe57.IntegerNode(image, 255))
    if len(columns[ELEMENTS["x"]]):
        scan.set("cartesianBounds", bounds)
    scan.set("colorLimits", limits)


def _element(libe57: Any, image: Any, column: NDArray[np.generic]) -> Any:
    """The prototype of a column: single precision, or whole numbers within the bounds of its type."""
    if column.dtype.kind == "f":
        return libe57.FloatNode(image, 0.0, libe57.E57_SINGLE)
    bounds = np.iinfo(np.dtype(column.dtype.str))
    return libe57.IntegerNode(image, 0, int(bounds.min), int(bounds.max))


def _buffer(libe57: Any, image: Any, element: str, column: NDArray[np.generic]) -> Any:
    return libe57.SourceDestBuffer(image, element, column, max(len(column), 1), True, False)


def _held_kind(column: NDArray[np.generic]) -> np.dtype[np.generic]:
    """What its buffer holds: pye57 takes 64-bit integers right only as C's `long long`, and no 32-bit ones."""
    return np.dtype(np.longlong) if column.dtype == np.int32 else column.dtype


def _read_kind(name: str) -> np.dtype[np.generic]:
    if name in {"red", "green", "blue", "camera"}:
        return np.dtype(np.uint8)
    return np.dtype(np.longlong if name in {"row", "column"} else np.float32)
