"""Frames per second of our reader against the SDK's own playback, and how many frames each returns.

Both read the same files, in turns: a `.db3` written here by the SDK's recorder, and a `.bag` of 120 images that repeats
those of the genuine D435 recording. The SDK plays as fast as it can (`set_real_time(False)`), in a process of its own
because it can hang; its loading of the file is not counted, ours is.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from harness import ROOT, Goal, Peer, Report, timing_of
from lz4.frame import compress  # type: ignore[attr-defined]
from rosbags.rosbag1 import Reader, Writer

from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.recording import open_recording
from depthcell.acquisition.simulator.recordingwriter import WrittenDevice, WrittenFrame, write_recording
from depthcell.acquisition.transform import RigidTransform

REPETITIONS = 7
HANG_S = 60
PLAYBACK = ROOT / "tests" / "sdkplayback.py"
D435 = ROOT / "tests" / "data" / "single_depth_color_640x480.bag"


@dataclass(frozen=True, slots=True)
class Run:
    """One reading of a file: seconds on the wall, seconds of processor time, frames returned."""

    seconds: float
    cpu_s: float
    frames: int


def main() -> None:
    """Measure both formats and write the report."""
    report = Report("read_recording")
    with tempfile.TemporaryDirectory(prefix="depthcell-") as folder:
        for path in (write_db3(Path(folder) / "d405.db3", 60), repeat_bag(Path(folder) / "d435.bag", 40)):
            compare(report, path)
    report.write()


def compare(report: Report, path: Path) -> None:
    """Read in turns, and report seconds per frame returned."""
    ours: list[Run] = []
    theirs: list[Run] = []
    read_once(path)  # what is compiled at the first use is compiled now, and the file is in the page cache for both
    for _ in range(REPETITIONS):
        theirs.append(play_once(path))
        ours.append(read_once(path))
    us, peer = (timing_of([run.seconds / run.frames for run in runs if run.frames]) for runs in (ours, theirs))
    report.add(
        f"read one image of {path.suffix}, {path.stat().st_size / 1e6:.0f} MB",
        us,
        Goal(ratio=1.0),
        Peer("librealsense playback, not in real time", peer),
        frames_per_s=round(1 / us.median_s),
        peer_frames_per_s=round(1 / peer.median_s),
        frames_returned=[run.frames for run in ours],
        peer_frames_returned=[run.frames for run in theirs],
        cpu_ms_per_frame=cpu_ms_per_frame(ours),
        peer_cpu_ms_per_frame=cpu_ms_per_frame(theirs),
    )


def cpu_ms_per_frame(runs: list[Run]) -> float:
    """Median processor time per frame, which other load on the machine sways less than the clock on the wall."""
    return round(statistics.median(run.cpu_s / run.frames for run in runs if run.frames) * 1e3, 3)


def read_once(path: Path) -> Run:
    """Our reader, every image unpacked."""
    start, start_cpu = time.perf_counter(), time.process_time()
    count = sum(1 for _ in open_recording(path).frames())
    return Run(time.perf_counter() - start, time.process_time() - start_cpu, count)


def play_once(path: Path) -> Run:
    """The SDK's playback; no frames where it hangs."""
    command = [sys.executable, str(PLAYBACK), str(path), "--count"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=HANG_S, check=True)
    except subprocess.TimeoutExpired:
        return Run(HANG_S, HANG_S, 0)
    content = json.loads(run.stdout)
    return Run(content["seconds"], content["cpu_seconds"], len(content["frames"]))


def write_db3(path: Path, instants: int) -> Path:
    """A D405 recording of 848x480 with the texture and noise that real images have, so that packing has real work."""
    rng = np.random.default_rng(1)
    rows, columns = np.mgrid[0:480, 0:848]
    surface = 3000 + columns * 0.8 + rows * 0.5 + 40 * np.sin(columns / 50) * np.cos(rows / 40)
    holes = rng.random((60, 106)).repeat(8, axis=0).repeat(8, axis=1) < 0.08
    shade = (100 + 60 * np.sin(columns / 80) + 30 * np.cos(rows / 60))[..., None] + (0, 10, 20)
    frames = []
    for number in range(instants):
        depth = np.where(holes, 0, surface + rng.normal(0, 2, surface.shape)).astype(np.uint16)
        rgb = (shade + rng.normal(0, 3, shade.shape)).clip(0, 255).astype(np.uint8)
        frames.append(WrittenFrame(depth, rgb, 10**9 + number * 33_333_000, number))
    lens = Intrinsics(848, 480, 433.0, 433.0, 424.0, 240.0)
    T_color_depth = RigidTransform.identity("color:BENCH", "depth:BENCH")
    device = WrittenDevice("BENCH", "Intel RealSense D405", lens, lens, T_color_depth, 0.0001, 0.018)
    write_recording(path, device, frames)
    return path


def repeat_bag(path: Path, times: int) -> Path:
    """The messages of the genuine D435 recording, its images repeated, one third of a second apart."""
    writer = Writer(path)
    writer.set_compression(Writer.CompressionFormat.LZ4)
    # The SDK reads only the kind of LZ4 frame that it writes itself.
    writer.compressor = partial(compress, block_size=6, block_linked=False, content_checksum=True, store_size=False)
    with Reader(D435) as reader, writer:
        connections = {
            source.id: writer.add_connection(
                source.topic, source.msgtype, msgdef=source.msgdef.data, md5sum=source.digest
            )
            for source in reader.connections
        }
        messages = [(connections[source.id], when, bytes(data)) for source, when, data in reader.messages()]
        for repetition in range(times):
            for connection, when, data in messages:
                if "/image/" in connection.topic:
                    writer.write(connection, when + repetition * 333_000_000, data)
                elif repetition == 0:
                    writer.write(connection, when, data)
    return path


if __name__ == "__main__":
    main()
