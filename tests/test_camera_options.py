"""What is asked of a camera is taken, or refused by name: options, stream profiles, presets."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from depthcell.acquisition.camerasettings import CameraSettings, ExposureSettings, StreamSettings, SyncRole
from depthcell.acquisition.deviceoptions import choose_streams, configure, load_preset, set_option
from depthcell.acquisition.sdk import realsense
from depthcell.acquisition.simulator.softwarecamera import SMALL, SoftwareCamera
from depthcell.errors import DepthcellError


def settings(**asked: Any) -> CameraSettings:
    return CameraSettings("A", SMALL, SMALL, **asked)


def configured(camera: SoftwareCamera, asked: CameraSettings) -> SoftwareCamera:
    configure(camera.device, asked, choose_streams(camera.device, asked))
    return camera


def option(sensor: Any, name: str) -> float:
    value: float = sensor.get_option(getattr(realsense().option, name))
    return value


def test_everything_asked_is_set() -> None:
    camera = configured(
        SoftwareCamera("A"),
        settings(
            sync=SyncRole.SLAVE,
            depth_exposure=ExposureSettings(6000, 32),
            color_exposure=ExposureSettings(12_000),
            emitter=False,
            laser_power_mw=90,
        ),
    )
    expected = {
        "inter_cam_sync_mode": 2,
        "enable_auto_exposure": 0,
        "exposure": 6000,
        "gain": 32,
        "emitter_enabled": 0,
        "laser_power": 90,
    }
    assert {name: option(camera.stereo, name) for name in expected} == expected
    assert option(camera.rgb, "exposure") == 120  # in units of 100 us
    assert option(camera.rgb, "enable_auto_exposure") == 0
    assert option(camera.stereo, "global_time_enabled") == option(camera.rgb, "global_time_enabled") == 0


def test_what_is_not_asked_stays_as_it_was() -> None:
    camera = SoftwareCamera("A")
    set_option(camera.stereo, "A", "exposure", 4321)
    configured(camera, settings())
    assert option(camera.stereo, "exposure") == 4321
    assert option(camera.stereo, "laser_power") == 150
    assert option(camera.rgb, "enable_auto_exposure") == 1


def test_automatic_exposure_can_be_asked_for() -> None:
    camera = SoftwareCamera("A")
    set_option(camera.stereo, "A", "enable_auto_exposure", 0)
    configured(camera, settings(depth_exposure=ExposureSettings()))
    assert option(camera.stereo, "enable_auto_exposure") == 1


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (settings(laser_power_mw=400), "laser_power: 400 is not among its values 0 to 360 in steps of 30"),
        (settings(laser_power_mw=47), "laser_power: 47 is not among its values 0 to 360 in steps of 30"),
        (settings(depth_exposure=ExposureSettings(0)), "exposure: 0 is not among its values 1 to 165000"),
        (settings(depth_exposure=ExposureSettings(100, 300)), "gain: 300 is not among"),
        (settings(color_exposure=ExposureSettings(150)), "exposure: 1.5 is not among its values 1 to 10000"),
    ],
)
def test_a_value_outside_the_range_is_refused_by_name_and_range(asked: CameraSettings, message: str) -> None:
    with pytest.raises(DepthcellError, match=f"camera A: {message}"):
        configured(SoftwareCamera("A"), asked)


def test_an_option_the_camera_lacks_is_refused_only_if_asked() -> None:
    camera = SoftwareCamera("A", model="D405")
    configured(camera, settings())
    bare = realsense().software_device().add_sensor("Stereo Module")
    with pytest.raises(DepthcellError, match="camera A: emitter_enabled: this camera does not have it"):
        set_option(bare, "A", "emitter_enabled", 1)
    with pytest.raises(DepthcellError, match="color_exposure: it has no colour stream of a sensor of its own"):
        configured(camera, settings(color_exposure=ExposureSettings(1000)))


class StubbornSensor:
    """A sensor that accepts every value and keeps its own."""

    def __init__(self, sensor: Any) -> None:
        self._sensor = sensor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sensor, name)

    def set_option(self, option: Any, value: float) -> None:
        pass


def test_a_value_that_is_accepted_but_not_taken_is_caught() -> None:
    sensor = StubbornSensor(SoftwareCamera("A").stereo)
    set_option(sensor, "A", "exposure", 8_500)  # what it holds anyway
    with pytest.raises(DepthcellError, match="exposure: 6000 was asked and 8500 taken"):
        set_option(sensor, "A", "exposure", 6_000)


def test_a_stream_that_is_not_offered_is_refused_with_those_that_are() -> None:
    asked = CameraSettings("A", StreamSettings(848, 480, 25), None)
    with pytest.raises(DepthcellError, match=r"camera A: depth 848x480@25 \(z16\) is not offered, but 64x48@30"):
        choose_streams(SoftwareCamera("A").device, asked)


@given(st.integers(1, 4000), st.integers(1, 4000), st.integers(1, 300))
def test_stream_settings_round_trip_through_text(width_px: int, height_px: int, fps: int) -> None:
    stream = StreamSettings(width_px, height_px, fps)
    assert StreamSettings.parse(str(stream)) == stream


@pytest.mark.parametrize("text", ["848x480", "848@30", "axb@c", "", "0x480@30", "848x480@-1"])
def test_a_stream_written_wrongly_is_refused(text: str) -> None:
    with pytest.raises(DepthcellError, match="stream"):
        StreamSettings.parse(text)


def test_contradictory_settings_are_refused_by_name() -> None:
    with pytest.raises(DepthcellError, match=r"exposure\.gain"):
        ExposureSettings(None, 16)
    with pytest.raises(DepthcellError, match="needs a depth, colour or infrared stream"):
        CameraSettings("A", None, None)
    with pytest.raises(DepthcellError, match="silent_after_s"):
        CameraSettings("A", silent_after_s=60, lost_after_s=30)
    assert SyncRole.named("full-slave") is SyncRole.FULL_SLAVE
    with pytest.raises(DepthcellError, match="there is no role 'boss'; choose one of independent, master"):
        SyncRole.named("boss")


PRESET = {
    "schema version": 1,
    "parameters": {"param-medianthreshold": "500", "controls-laserpower": "150", "stream-width": "1280"},
    "viewer": {"stream-fps": "30"},
}


class AdvancedMode:
    """Behaves like `rs400_advanced_mode`; `keeps` are parameters it silently holds on to."""

    def __init__(self, keeps: dict[str, str] | None = None, is_on: bool = True) -> None:
        self._keeps, self._is_on = keeps or {}, is_on
        self._loaded: dict[str, Any] = {}

    def __call__(self, _device: Any) -> "AdvancedMode":
        return self

    def is_enabled(self) -> bool:
        return self._is_on

    def load_json(self, text: str) -> None:
        self._loaded = json.loads(text)["parameters"]

    def serialize_json(self) -> str:
        # The device writes numbers in its own way and knows parameters of which the file says nothing.
        taken = {name: f"{float(value):.1f}" for name, value in {**self._loaded, **self._keeps}.items()}
        return json.dumps({"parameters": {**taken, "aux-param-colorcorrection1": "0.298"}})


@pytest.fixture
def preset(tmp_path: Path) -> Path:
    path = tmp_path / "preset.json"
    path.write_text(json.dumps(PRESET))
    return path


def test_a_preset_is_verified_value_by_value(preset: Path) -> None:
    device = SoftwareCamera("A").device
    load_preset(AdvancedMode({"stream-width": "848"}), device, preset)  # streams are chosen by the settings instead
    with pytest.raises(DepthcellError, match=r"preset\.json: not taken: param-medianthreshold \(asked 500, took 625"):
        load_preset(AdvancedMode({"param-medianthreshold": "625"}), device, preset)


def test_advanced_mode_is_not_switched_on_behind_ones_back(preset: Path) -> None:
    with pytest.raises(DepthcellError, match="advanced mode is off; switch it on once"):
        load_preset(AdvancedMode(is_on=False), SoftwareCamera("A").device, preset)


def test_a_camera_without_advanced_mode_refuses_a_preset(preset: Path) -> None:
    with pytest.raises(DepthcellError, match=r"camera A: preset .* has no advanced mode"):
        configured(SoftwareCamera("A"), settings(preset=preset))


@pytest.mark.parametrize("content", [None, "{", "[1, 2]"])
def test_a_file_that_is_no_preset_is_named(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "p.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DepthcellError, match=r"preset .*p\.json"):
        configured(SoftwareCamera("A"), settings(preset=path))
