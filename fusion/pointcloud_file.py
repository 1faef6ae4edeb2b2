"""Part clouds as PLY files that any viewer opens."""

from pathlib import Path

from depthcell.fusion.partcloud import PartCloud


def write_ply(path: Path, cloud: PartCloud) -> None:
    """Write a cloud as binary little-endian PLY with normals, colours and uncertainties, whole or not at all."""
    raise NotImplementedError
