"""The camera's own health: where it is offered, what it means, and what is refused."""

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from depthcell.acquisition.sdk import realsense
from depthcell.calib.verify import onchip
from depthcell.calib.verify.onchip import OnChipHealth, on_chip_health, on_chip_record
from depthcell.errors import DepthcellError, Reason


class OneDevice:
    """A source with one device, or none."""

    def __init__(self, device: Any) -> None:
        self.device = device

    def serials(self) -> tuple[str, ...]:
        return ("SIM001",)

    def find(self, serial: str) -> Any:
        return self.device if serial == "SIM001" else None

    def is_connected(self, device: Any) -> bool:
        return device is self.device

    def wait_for_change(self, timeout_s: float) -> bool:
        return timeout_s < 0


class Calibrating:
    """A device that offers self-calibration, and remembers how it was asked."""

    def __init__(self, health: object) -> None:
        self.health = health
        self.asked: list[tuple[object, ...]] = []
        self.streamed: list[object] = []

    def is_auto_calibrated_device(self) -> bool:
        return True

    def run_on_chip_calibration(self, settings: str, progress: Callable[[float], None], timeout_ms: int) -> Any:
        self.asked.append((settings, timeout_ms))
        progress(100.0)
        if isinstance(self.health, RuntimeError):
            raise self.health
        return [1, 2, 3], self.health


def sdk_of(device: Calibrating) -> SimpleNamespace:
    """As much of the SDK as a self-calibration needs, with the true names of its streams and formats."""
    real = realsense()
    config = SimpleNamespace(
        enable_device=device.streamed.append, enable_stream=lambda *stream: device.streamed.append(stream)
    )
    pipeline = SimpleNamespace(start=lambda _: None, stop=lambda: device.streamed.append("stopped"))
    return SimpleNamespace(
        config=lambda: config,
        pipeline=lambda: pipeline,
        stream=real.stream,
        format=real.format,
        auto_calibrated_device=lambda _: device,
    )


def asked(device: Calibrating, monkeypatch: pytest.MonkeyPatch) -> OnChipHealth:
    monkeypatch.setattr(onchip, "realsense", lambda: sdk_of(device))
    return on_chip_health("SIM001", OneDevice(device))


def test_a_software_device_offers_none_and_is_refused_clearly() -> None:
    device = realsense().software_device()
    with pytest.raises(DepthcellError, match="offers no self-calibration") as refusal:
        on_chip_health("SIM001", OneDevice(device))
    assert refusal.value.reason is Reason.DEVICE_MISSING


def test_a_camera_that_is_not_there_is_refused() -> None:
    with pytest.raises(DepthcellError, match="no such camera"):
        on_chip_health("SIM002", OneDevice(None))


def test_the_sdk_has_the_call_that_is_made() -> None:
    text = str(realsense().auto_calibrated_device.run_on_chip_calibration.__doc__)
    assert "json_content: str, callback: " in text
    assert "timeout_ms: int" in text


@pytest.mark.parametrize("health", [0.11, (0.11, 0.4)])
def test_health_is_asked_while_streaming_and_the_new_table_is_left(
    health: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Calibrating(health)
    found = asked(device, monkeypatch)
    assert found == OnChipHealth("SIM001", 0.11)
    assert found.passed is True
    assert len(device.asked) == 1
    depth, z16 = realsense().stream.depth, realsense().format.z16
    assert device.streamed == ["SIM001", (depth, 256, 144, z16, 90), "stopped"]
    assert not hasattr(device, "set_calibration_table")  # to take it would have failed here


def test_a_camera_that_does_not_finish_is_refused_and_stops_streaming(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Calibrating(RuntimeError("Not enough depth pixels"))
    with pytest.raises(DepthcellError, match=r"Not enough depth pixels.*textured"):
        asked(device, monkeypatch)
    assert device.streamed[-1] == "stopped"


@pytest.mark.parametrize(
    ("health", "passed", "word"),
    [(0.1, True, "good"), (-0.2, True, "good"), (0.5, None, "soon"), (-0.8, False, "anew"), (math.nan, False, "anew")],
)
def test_health_means_what_intel_says(health: float, passed: bool | None, word: str) -> None:
    found = OnChipHealth("SIM001", health)
    assert found.passed is passed
    assert word in found.in_words


def test_it_becomes_a_record() -> None:
    record = on_chip_record(OnChipHealth("SIM001", 0.9), 7)
    assert not record.passed
    assert record.checks[0].decision == "fail"
    assert "SIM001" in record.test
    assert on_chip_record(OnChipHealth("SIM001", 0.1), 7).passed
