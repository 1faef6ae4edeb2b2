"""RealSense recordings read without the SDK: every recorded image exactly once, in the order of the file, each time."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType

import numpy as np

from depthcell.acquisition import rosbag1, rosbag2
from depthcell.acquisition.bagdialect import BagDialect
from depthcell.acquisition.damage import DamageError
from depthcell.acquisition.db3dialect import Db3Dialect
from depthcell.acquisition.dialect import Dialect
from depthcell.acquisition.framereader import read_frames, read_header
from depthcell.acquisition.frameset import CameraFrame, ColorImage, DepthImage, InfraredImage
from depthcell.acquisition.pairing import PATIENCE, Shot, pair_frames
from depthcell.acquisition.recordedframe import RecordedFrame, Stream, StreamKind
from depthcell.acquisition.rosmessage import RosMessage
from depthcell.acquisition.transform import RigidTransform
from depthcell.errors import DepthcellError, Reason
from depthcell.files import sha256_of_file

SUPPORTED_VERSIONS = range(3, 5)
"""Of the SDK's recording format (librealsense `ros_file_versions`); older ones keep no options."""

LONGEST_MESSAGE = 300


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

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the file, lower-case hexadecimal; reads every byte, once."""
        return sha256_of_file(self.path)

    @property
    def depth_units_m(self) -> float | None:
        """Metres per count of depth; None where not recorded."""
        return self._depth_option("Depth Units")

    @property
    def baseline_m(self) -> float | None:
        """Distance of the stereo pair; None where not recorded."""
        baseline_mm = self._depth_option("Stereo Baseline")
        return None if baseline_mm is None else baseline_mm / 1e3

    def _depth_option(self, name: str) -> float | None:
        """An option of the sensor that the depth comes from."""
        sensors = [stream.sensor for stream in self.streams if stream.kind is StreamKind.DEPTH]
        return self.options.get(sensors[0], {}).get(name) if sensors else None

    def frames(self) -> Iterator[RecordedFrame]:
        """Every recorded image exactly once, in the order of the file.

        What can be told of damage: in a `.db3` any flipped bit of a PNG image (its CRC-32), and lost or moved rows
        (the index); in a packed `.bag` any flipped bit (the chunk's checksum). What cannot: a flipped bit in the
        pixels of a `.bag` or `.db3` recorded without packing, in images that SDK 2.58 packed with zstd, and in the
        digits of a `.db3`'s texts (metadata, options, intrinsics). `sha256` tells those, where one was kept.

        Raises:
            DepthcellError: the file is damaged (`Reason.RECORDING_DAMAGED`, after every frame before the damage; the
                message names the byte) or holds what cannot be read (`Reason.RECORDING_UNSUPPORTED`).
        """
        source = _source_of(self.path)
        with _naming(self.path):
            yield from read_frames(source.messages(self.path), source.dialect)

    def camera_frames(self, tolerance_ns: int | None = None) -> Iterator[CameraFrame]:
        """Depth, left infrared and colour by their timestamps; what finds no partner comes alone, nothing is dropped.

        A pair's metadata are the depth image's, and the colour image's with "color:" before their names.

        Args:
            tolerance_ns: largest difference within a pair; half a period of the faster stream by default.

        Raises:
            DepthcellError: as for `frames`, and where an image has no intrinsics, a depth image no units, or a colour
                image no colours.
        """
        kinds = (StreamKind.DEPTH, StreamKind.COLOR, StreamKind.INFRARED)
        streams = [stream for stream in self.streams if stream.kind in kinds]
        if tolerance_ns is None:
            tolerance_ns = 500_000_000 // max([stream.fps for stream in streams], default=1)
        patience = PATIENCE if len(streams) > 1 else 0
        has_infrared = any(stream.kind is StreamKind.INFRARED for stream in streams)
        for shot in pair_frames(self.frames(), tolerance_ns, patience, has_infrared=has_infrared):
            yield self._camera_frame(shot)

    def _camera_frame(self, shot: Shot) -> CameraFrame:
        depth, color, infrared = shot
        metadata: dict[str, int | float] = {} if color is None else dict(color.metadata)
        if depth is not None:
            metadata = {**depth.metadata, **{f"color:{name}": value for name, value in metadata.items()}}
        with _naming(self.path):
            return CameraFrame(
                self.serial,
                self.model,
                None if depth is None else self._depth_image(depth),
                None if color is None else _color_image(color),
                self.T_color_depth,
                MappingProxyType(metadata),
                None if infrared is None else _infrared_image(infrared),
            )

    def _depth_image(self, frame: RecordedFrame) -> DepthImage:
        units_m = frame.units_m or self.depth_units_m
        if frame.stream.intrinsics is None or not units_m or frame.pixels.dtype != "uint16":
            raise DepthcellError(
                f"its {frame.stream.format} depth lacks intrinsics or units; record Z16 with the option Depth Units",
                Reason.RECORDING_UNSUPPORTED,
            )
        return DepthImage.from_counts(
            frame.pixels.astype(np.uint16, copy=False),
            frame.stream.intrinsics,
            units_m,
            baseline_m=self.baseline_m,
            timestamp_ns=frame.timestamp_ns,
            number=frame.number,
        )


def _color_image(frame: RecordedFrame) -> ColorImage:
    if frame.stream.intrinsics is None or frame.pixels.ndim != 3:
        raise DepthcellError(
            f"its {frame.stream.format} colour has no intrinsics or no colours; record RGB8",
            Reason.RECORDING_UNSUPPORTED,
        )
    return ColorImage(
        frame.pixels.astype(np.uint8, copy=False), frame.stream.intrinsics, frame.timestamp_ns, frame.number
    )


def _infrared_image(frame: RecordedFrame) -> InfraredImage:
    if frame.stream.intrinsics is None:
        raise DepthcellError("its infrared has no intrinsics; record it anew", Reason.RECORDING_UNSUPPORTED)
    return InfraredImage(
        frame.pixels.astype(np.uint8, copy=False), frame.stream.intrinsics, frame.timestamp_ns, frame.number
    )


def open_recording(path: Path) -> Recording:
    """Read what a recording says of itself; its images are read by `Recording.frames`.

    Raises:
        DepthcellError: the file is missing, is no recording, is damaged before its first image, holds several
            devices or a pixel format that cannot be read.
    """
    source = _source_of(path)
    with _naming(path):
        header = read_header(source.header_messages(path), source.dialect, source.topics(path))
        if not header.message_count:
            raise DamageError(0, "the file holds no messages")
        if not header.streams or header.version not in SUPPORTED_VERSIONS or "Serial Number" not in header.device:
            raise DepthcellError(
                f"it is no RealSense recording of file version 3 or 4 with a serial number (version {header.version}, "
                f"{len(header.streams)} image streams); record it anew",
                Reason.RECORDING_UNSUPPORTED,
            )
        serial = header.device["Serial Number"]
        return Recording(
            path=path,
            serial=serial,
            model=header.device.get("Name", ""),
            firmware=header.device.get("Firmware Version", ""),
            info=MappingProxyType(header.device),
            file_version=header.version,
            streams=tuple(header.all_streams().values()),
            sensors=MappingProxyType({number: info.get("Name", "") for number, info in header.sensors.items()}),
            options=MappingProxyType(header.options),
            T_color_depth=header.color_from_depth(serial),
        )


@dataclass(frozen=True, slots=True)
class _Source:
    """How the files of one suffix are read: in full, and for their header alone; and the topics told in advance."""

    dialect: Dialect
    messages: Callable[[Path], Iterator[RosMessage]]
    header_messages: Callable[[Path], Iterator[RosMessage]]
    topics: Callable[[Path], tuple[str, ...]] = lambda _: ()


_SOURCES = {
    ".db3": _Source(
        Db3Dialect(),
        rosbag2.read_messages,
        partial(rosbag2.read_messages, is_checked=False),
        rosbag2.topic_names,
    ),
    ".bag": _Source(BagDialect(), rosbag1.read_messages, rosbag1.read_messages),
}


def _source_of(path: Path) -> _Source:
    if path.suffix not in _SOURCES:
        raise DepthcellError(f"recording {path}: has neither suffix .db3 nor .bag; name a RealSense recording")
    return _SOURCES[path.suffix]


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Say which file is meant in all errors of reading it, and what to do."""
    try:
        yield
    except DamageError as damage:
        raise DepthcellError(
            f"recording {path}: damaged at byte {damage.offset}: {_printable(damage.what)}; copy the file anew "
            "from its source, or record again",
            Reason.RECORDING_DAMAGED,
        ) from damage
    except OSError as error:
        raise DepthcellError(f"recording {path}: cannot be read ({error.strerror}); check name and rights") from error
    except DepthcellError as error:
        raise DepthcellError(f"recording {path}: {_printable(str(error))}", error.reason) from error


def _printable(text: str) -> str:
    """A message that may quote damaged bytes, fit for a terminal: one line, of bounded length."""
    shown = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
    return shown if len(shown) <= LONGEST_MESSAGE else shown[:LONGEST_MESSAGE] + "..."
