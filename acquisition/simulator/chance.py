"""All chance of a simulated cell from one seed."""

from enum import IntEnum

import numpy as np

from depthcell.errors import DepthcellError


def generator_of(seed: int, stream: IntEnum, *key: int) -> np.random.Generator:
    """The generator for one purpose, so that no order matters; `key` holds part number, camera number and the like."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(int(stream), *key)))


def check_plan(seed: int, depth_units_mm: float) -> None:
    """Refuse what no simulated cell can have.

    Raises:
        DepthcellError: names the option.
    """
    if not 0.001 <= depth_units_mm <= 10:
        raise DepthcellError(f"--depth-units-mm {depth_units_mm}: must be 0.001 to 10")
    if seed < 0:
        raise DepthcellError(f"--seed {seed}: must be 0 or more")
