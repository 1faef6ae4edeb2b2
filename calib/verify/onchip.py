"""Health that a RealSense states of itself: its on-chip self-calibration, run for its verdict alone.

The camera looks at any textured scene, estimates how far its stereo pair is off, and gives a health: by Intel, below
0.25 in size the calibration is good, above 0.75 the camera must be calibrated anew. The new table it offers is not
taken: it would change the camera under the cell that was calibrated with it.
"""

import contextlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from depthcell.acquisition.devicesource import ConnectedDevices, DeviceSource
from depthcell.acquisition.sdk import realsense
from depthcell.calib.verify.health import DECISIONS, HealthCheck, HealthRecord, health_record
from depthcell.errors import DepthcellError, Reason

GOOD, BAD = 0.25, 0.75
TIMEOUT_MS = 15_000
WIDTH_PX, HEIGHT_PX, RATE_HZ = 256, 144, 90
"""What the camera has to stream meanwhile, as in librealsense's `depth_auto_calibration_example.py`."""
SETTINGS = json.dumps({"calib type": 0, "speed": 3, "scan parameter": 0, "white wall mode": 0})


@dataclass(frozen=True, slots=True)
class OnChipHealth:
    """What a camera says of itself; `health` is without unit."""

    serial: str
    health: float

    @property
    def passed(self) -> bool | None:
        """True below `GOOD`, False above `BAD`, None between."""
        size = abs(self.health)
        if not math.isfinite(size) or size > BAD:
            return False
        return True if size < GOOD else None

    @property
    def in_words(self) -> str:
        """For a person."""
        what = {
            True: f"good, below {GOOD}",
            False: f"above {BAD}: calibrate the camera, then the cell, anew",
            None: f"between {GOOD} and {BAD}: calibrate the camera soon",
        }
        return f"camera {self.serial}: on-chip health {self.health:.2f}, {what[self.passed]}"


def on_chip_health(
    serial: str, source: DeviceSource | None = None, progress: Callable[[float], None] = lambda _: None
) -> OnChipHealth:
    """Let a connected camera calibrate itself, and keep nothing but its health.

    Args:
        serial: which camera; no other program may use it meanwhile.
        source: where cameras are found; None takes those on USB.
        progress: called with per cent.

    Raises:
        DepthcellError: the camera is not connected, offers no self-calibration, or did not finish it.
    """
    device = (source or ConnectedDevices()).find(serial)
    if device is None:
        raise DepthcellError(
            f"--on-chip {serial}: no such camera is connected; see depthcell devices", Reason.DEVICE_MISSING
        )
    handle: Any = device
    if not handle.is_auto_calibrated_device():
        raise DepthcellError(
            f"--on-chip {serial}: this device offers no self-calibration; check the cell on an artefact instead",
            Reason.DEVICE_MISSING,
        )
    sdk = realsense()
    with _streaming(sdk, serial):
        try:
            _, health = sdk.auto_calibrated_device(handle).run_on_chip_calibration(SETTINGS, progress, TIMEOUT_MS)
        except RuntimeError as error:
            raise DepthcellError(
                f"--on-chip {serial}: the camera did not finish ({error}); point it at a textured, resting scene",
                Reason.DEVICE_LOST,
            ) from error
    return OnChipHealth(serial, _first(health))


def on_chip_record(found: OnChipHealth, valid_days: float) -> HealthRecord:
    """For the cell's health file."""
    check = HealthCheck(
        f"on-chip health of camera {found.serial}", found.health, None, GOOD, "1", DECISIONS[found.passed]
    )
    return health_record(
        f"on-chip self-calibration of {found.serial}",
        passed=found.passed is True,
        checks=(check,),
        summary=found.in_words,
        source=found.serial,
        valid_days=valid_days,
    )


def _first(health: float | tuple[float, ...]) -> float:
    """The SDK gives one number or two, of which the first is of this kind of calibration."""
    return float(health[0]) if isinstance(health, tuple) else float(health)


@contextlib.contextmanager
def _streaming(sdk: Any, serial: str) -> Any:
    config, pipeline = sdk.config(), sdk.pipeline()
    config.enable_device(serial)
    config.enable_stream(sdk.stream.depth, WIDTH_PX, HEIGHT_PX, sdk.format.z16, RATE_HZ)
    try:
        pipeline.start(config)
    except RuntimeError as error:
        raise DepthcellError(
            f"--on-chip {serial}: cannot stream ({error}); close other programs", Reason.DEVICE_LOST
        ) from error
    try:
        yield
    finally:
        pipeline.stop()
