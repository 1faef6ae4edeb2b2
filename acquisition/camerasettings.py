"""What is asked of a live camera: streams, synchronisation, exposure, projector. Nothing here talks to a device."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from enum import IntEnum
from pathlib import Path

from depthcell.acquisition.recordedframe import StreamKind
from depthcell.errors import DepthcellError, Reason


class SyncRole(IntEnum):
    """Part of a camera in hardware synchronisation: values of the SDK's option `inter_cam_sync_mode` on D400 cameras.

    A master drives the trigger line. A slave's depth follows it; a full slave's colour does too. With genlock the
    camera exposes at each outside trigger and waits for it without end.
    """

    INDEPENDENT = 0
    MASTER = 1
    SLAVE = 2
    FULL_SLAVE = 3
    GENLOCK = 4

    @classmethod
    def named(cls, name: str) -> "SyncRole":
        """The role of this name, such as "full-slave".

        Raises:
            DepthcellError: there is none.
        """
        try:
            return cls[name.upper().replace("-", "_")]
        except KeyError:
            known = ", ".join(role.name.lower().replace("_", "-") for role in cls)
            raise DepthcellError(f"sync: there is no role '{name}'; choose one of {known}") from None


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """Size and rate of an image stream.

    Attributes:
        width_px, height_px: image size.
        fps: frames per second.
    """

    width_px: int = 848
    height_px: int = 480
    fps: int = 30

    def __post_init__(self) -> None:
        for each in fields(self):
            if getattr(self, each.name) < 1:
                raise DepthcellError(f"stream.{each.name}: must be positive, got {getattr(self, each.name)}")

    @classmethod
    def parse(cls, text: str) -> "StreamSettings":
        """From "848x480@30".

        Raises:
            DepthcellError: the text has another form.
        """
        try:
            size, fps = text.split("@")
            width_px, height_px = size.split("x")
            return cls(int(width_px), int(height_px), int(fps))
        except ValueError:
            raise DepthcellError(f"stream '{text}': must look like 848x480@30 (width x height @ fps)") from None

    def __str__(self) -> str:
        return f"{self.width_px}x{self.height_px}@{self.fps}"


@dataclass(frozen=True, slots=True)
class ExposureSettings:
    """Exposure of one sensor.

    Attributes:
        exposure_us: exposure time; None lets the camera choose (automatic exposure).
        gain: in the camera's own steps; None leaves it as it is. Automatic exposure rules the gain as well.
    """

    exposure_us: int | None = None
    gain: int | None = None

    def __post_init__(self) -> None:
        if self.exposure_us is None and self.gain is not None:
            raise DepthcellError("exposure.gain: automatic exposure rules the gain; state exposure_us with it")


@dataclass(frozen=True, slots=True)
class CameraSettings:
    """One live camera. What is None is left as the camera, or the preset, has it.

    Attributes:
        serial: the device's serial number, as `depthcell devices` lists it.
        depth, color, infrared: the streams; at least one. Infrared is that of the left imager, for calibration.
        sync: part in hardware synchronisation.
        preset: advanced-mode JSON file, as the RealSense Viewer saves it.
        depth_exposure: of the stereo imagers (on a D405 colour comes from them too).
        color_exposure: of the colour imager.
        emitter: projector on or off.
        laser_power_mw: of the projector.
        silent_after_s: without a frame for this long the streams are opened anew; the device is never reset.
        lost_after_s: without a frame for this long the camera counts as lost.
    """

    serial: str
    depth: StreamSettings | None = StreamSettings()
    color: StreamSettings | None = StreamSettings()
    sync: SyncRole = SyncRole.INDEPENDENT
    preset: Path | None = None
    depth_exposure: ExposureSettings | None = None
    color_exposure: ExposureSettings | None = None
    emitter: bool | None = None
    laser_power_mw: int | None = None
    silent_after_s: float = 2.0
    lost_after_s: float = 30.0
    infrared: StreamSettings | None = None

    def __post_init__(self) -> None:
        if not self.streams:
            raise DepthcellError(f"camera {self.serial}: needs a depth, colour or infrared stream")
        if not 0 < self.silent_after_s <= self.lost_after_s:
            raise DepthcellError(f"camera {self.serial}: silent_after_s must lie between 0 and lost_after_s")

    @property
    def streams(self) -> Mapping[StreamKind, StreamSettings]:
        """The streams asked for, depth first."""
        asked = {
            StreamKind.DEPTH: self.depth,
            StreamKind.INFRARED: self.infrared,
            StreamKind.COLOR: self.color,
        }
        return {kind: stream for kind, stream in asked.items() if stream is not None}

    @property
    def frames_per_second(self) -> int:
        """Images a second, of all streams together."""
        return sum(stream.fps for stream in self.streams.values())


def sync_roles(serials: Sequence[str], master: str | None, is_genlocked: bool) -> dict[str, SyncRole]:
    """The part of each camera: one master and slaves, all genlocked, or, with neither, each for itself.

    The master comes last, so that the slaves already wait when it begins to trigger.

    Raises:
        DepthcellError: there is no camera, one is named twice, the master is not among them, or both are asked for.
    """
    if not serials:
        raise DepthcellError("no camera is connected; run: depthcell devices", Reason.DEVICE_MISSING)
    if len(set(serials)) < len(serials):
        raise DepthcellError(f"--camera: a serial number is named twice in {', '.join(serials)}; name each once")
    if master is None:
        return dict.fromkeys(serials, SyncRole.GENLOCK if is_genlocked else SyncRole.INDEPENDENT)
    if is_genlocked:
        raise DepthcellError("--genlock: waits for an outside trigger, so that no camera can be --master; give one")
    if master not in serials:
        raise DepthcellError(f"--master: {master} is not among the cameras {', '.join(serials)}; name one of these")
    slaves = dict.fromkeys((serial for serial in serials if serial != master), SyncRole.SLAVE)
    return {**slaves, master: SyncRole.MASTER}
