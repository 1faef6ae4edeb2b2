"""RealSense recordings read without the SDK: every recorded image exactly once, in the order of the file, every time."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from depthcell.acquisition.frameset import CameraFrame
from depthcell.acquisition.recordedframe import RecordedFrame, Stream
from depthcell.acquisition.transform import RigidTransform
from depthcell.files import sha256_of_file


@dataclass(frozen=True, eq=False)
class Recording:
    """One camera's recording, `.db3` (SDK 2.58 and later) or `.bag` (older SDKs).

    Attributes:
        path: the file.
        serial, model, firmware: of the camera, as it names itself; `firmware` is "" where not recorded.
        info: all the device said of itself, under the SDK's names ("Usb Type Descriptor", "Product Id" ...).
        file_version: of the SDK's recording format.
        streams: the image streams, in the order they were announced.
        sensors: sensor number -> its name ("Stereo Module", "RGB Camera").
        options: sensor number -> option name as the SDK spells it ("Stereo Baseline") -> value when recording began.
        T_color_depth: factory extrinsics, frames "color:<serial>" and "depth:<serial>"; None where not recorded.
        depth_units_m: metres per count of depth; None without a depth stream.
        baseline_m: distance of the stereo pair; None where not recorded.
    """

    path: Path
    serial: str
    model: str
    firmware: str
    info: Mapping[str, str]
    file_version: int
    streams: tuple[Stream, ...]
    sensors: Mapping[int, str]
    options: Mapping[int, Mapping[str, float]]
    T_color_depth: RigidTransform | None
    depth_units_m: float | None
    baseline_m: float | None

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the file, lower-case hexadecimal; reads every byte, once."""
        return sha256_of_file(self.path)

    def frames(self) -> Iterator[RecordedFrame]:
        """Every recorded image exactly once, in the order of the file.

        Raises:
            DepthcellError: the file is damaged (`Reason.RECORDING_DAMAGED`, after every frame before the damage; the
                message names the byte) or holds a format that cannot be read (`Reason.RECORDING_UNSUPPORTED`).
        """
        raise NotImplementedError

    def camera_frames(self, tolerance_ns: int | None = None) -> Iterator[CameraFrame]:
        """Depth and colour paired by their timestamps; what finds no partner comes alone, nothing is dropped.

        Args:
            tolerance_ns: largest difference within a pair; half a period of the faster stream by default.

        Raises:
            DepthcellError: as for `frames`, and where a depth image has no units or a colour image no colours.
        """
        raise NotImplementedError


def open_recording(path: Path) -> Recording:
    """Read what a recording says of itself; its images are read by `Recording.frames`.

    Raises:
        DepthcellError: the file is missing, is no recording, is damaged before its first image, holds several
            devices or a pixel format that cannot be read.
    """
    raise NotImplementedError
