"""Our reader against the SDK's own playback: whatever frame that returns, we return bit for bit, and none is missing.

The playback runs in a process of its own with a time limit, since it can hang and is known to lose frames.
"""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from softwarerecording import Plan, record

from depthcell.acquisition.recordedframe import RecordedFrame
from depthcell.acquisition.recording import open_recording

TESTS = Path(__file__).parent
LIMIT_S = 40
FILES = [
    "single_depth_color_640x480.bag",
    "software_sdk257_lz4.bag",
    "software_sdk257_raw.bag",
    "software_sdk258_zstd.db3",
    "new.db3",
    "new_bgr8_unpacked.db3",
]


@pytest.fixture(scope="module", params=FILES)
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    name = str(request.param)
    if not name.startswith("new"):
        return TESTS / "data" / name
    made = tmp_path_factory.mktemp("recordings") / name
    plan = Plan(infrared="y8") if name == "new.db3" else Plan(color="bgr8", is_packed=False)
    record(made, plan)
    return made


@pytest.fixture(scope="module")
def played(path: Path) -> dict[str, Any]:
    """What the SDK's playback returns; skipped where it hangs three times."""
    for _ in range(3):
        command = [sys.executable, str(TESTS / "sdkplayback.py"), str(path)]
        try:
            run = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=True)
        except subprocess.TimeoutExpired:
            continue
        content: dict[str, Any] = json.loads(run.stdout)
        return content
    pytest.skip(f"the SDK's playback of {path.name} hung three times for {LIMIT_S} s")


def fingerprint(frame: RecordedFrame) -> tuple[str, int, str]:
    pixels = frame.pixels[..., ::-1] if frame.stream.format == "bgr8" else frame.pixels
    return frame.stream.kind, frame.number, hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


def test_every_frame_of_the_sdk_is_among_ours(path: Path, played: dict[str, Any]) -> None:
    ours = {fingerprint(frame): frame for frame in open_recording(path).frames()}
    assert played["frames"]
    assert len(played["frames"]) <= len(ours)
    for theirs in played["frames"]:
        frame = ours[theirs["stream"], theirs["number"], theirs["sha256"]]
        assert frame.stream.format == theirs["format"]
        assert frame.timestamp_ns == pytest.approx(theirs["timestamp_ms"] * 1e6, abs=100)
        assert frame.timestamp_domain.lower().replace(" ", "_") == theirs["domain"]
        metadata = {name.lower().replace(" ", "_"): value for name, value in frame.metadata.items()}
        assert metadata.items() <= theirs["metadata"].items()
        if frame.units_m is not None:
            assert np.float32(frame.units_m) == np.float32(theirs["units_m"])


def test_extrinsics_are_the_sdks(path: Path, played: dict[str, Any]) -> None:
    T_color_depth = open_recording(path).T_color_depth
    assert T_color_depth is not None
    theirs = np.array(played["extrinsics"]["rotation_by_columns"]).reshape(3, 3).T
    np.testing.assert_allclose(T_color_depth.rotation, theirs, atol=2e-6)
    np.testing.assert_allclose(T_color_depth.translation_m, played["extrinsics"]["translation_m"], atol=2e-6)
    # The check would tell a transposed rotation or the opposite direction.
    assert np.abs(T_color_depth.rotation.T - theirs).max() > 1e-3
    assert np.abs(T_color_depth.inverse().translation_m - played["extrinsics"]["translation_m"]).max() > 1e-3


def test_intrinsics_are_the_sdks(path: Path, played: dict[str, Any]) -> None:
    for stream in open_recording(path).streams:
        lens = stream.intrinsics
        assert lens is not None
        ours = [lens.width_px, lens.height_px, lens.fx_px, lens.fy_px, lens.cx_px, lens.cy_px]
        assert [*ours, lens.distortion, *lens.coefficients] == played["intrinsics"][stream.kind]


def test_options_are_the_sdks(path: Path, played: dict[str, Any]) -> None:
    recording = open_recording(path)
    ours = {
        recording.sensors[sensor]: {
            name.lower().replace(" ", "_"): np.float32(value) for name, value in options.items()
        }
        for sensor, options in recording.options.items()
    }
    theirs = {
        sensor: {name: np.float32(value) for name, value in options.items()}
        for sensor, options in played["options"].items()
    }
    assert ours == theirs
