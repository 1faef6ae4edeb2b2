"""`depthcell devices`: what it says of cameras, and what it advises where there are none."""

import json
from pathlib import Path

import pytest

from depthcell import cli
from depthcell.acquisition import devicelist
from depthcell.acquisition.deviceoptions import set_option
from depthcell.acquisition.devicesource import ConnectedDevices
from depthcell.acquisition.sdk import realsense
from depthcell.acquisition.simulator.softwarecamera import SoftwareCamera


def test_a_camera_is_summarized() -> None:
    camera = SoftwareCamera("123")
    set_option(camera.stereo, "123", "inter_cam_sync_mode", 3)
    assert devicelist.summarize(camera.device) == devicelist.DeviceSummary(
        "123", "Intel RealSense D435", "5.16.0.1", "3.2", "full-slave", 41.0, None
    )
    set_option(camera.stereo, "123", "inter_cam_sync_mode", 33)  # genlock with bursts
    assert devicelist.summarize(camera.device).sync == "genlock"


def test_what_a_camera_does_not_tell_is_none() -> None:
    device = realsense().software_device()
    device.register_info(realsense().camera_info.serial_number, "9")
    summary = devicelist.summarize(device)
    assert (summary.serial, summary.usb, summary.sync, summary.asic_temperature_c) == ("9", None, None, None)
    assert not summary.is_slow


def bus(tmp_path: Path, **products: str) -> Path:
    for name, product in products.items():
        (tmp_path / "usb" / name).mkdir(parents=True)
        (tmp_path / "usb" / name / "product").write_text(product + "\n")
    return tmp_path / "usb"


def test_advice_fits_what_the_operating_system_sees(tmp_path: Path) -> None:
    linux, wsl = tmp_path / "linux", tmp_path / "wsl"
    linux.write_text("Linux version 6.1.0\n")
    wsl.write_text("Linux version 5.15.90.1-microsoft-standard-WSL2\n")
    assert "container" in devicelist.why_none(tmp_path / "absent", linux)[0]
    usb = bus(tmp_path, a="USB keyboard")
    assert "USB 3 port" in devicelist.why_none(usb, linux)[0]
    assert "usbipd" in devicelist.why_none(usb, wsl)[0]
    seen = devicelist.why_none(bus(tmp_path, b="Intel(R) RealSense(TM) Depth Camera 435"), linux)
    assert "Depth Camera 435 at b" in seen[0]
    assert "udev" in seen[1]


def leave(*words: str) -> object:
    with pytest.raises(SystemExit) as left:
        cli.main(list(words))
    return left.value.code


@pytest.fixture
def _no_camera() -> None:
    if ConnectedDevices().devices():
        pytest.skip("a camera is connected; what is said without one cannot be seen")


@pytest.mark.usefixtures("_no_camera")
def test_without_a_camera_the_list_is_empty_and_people_are_helped(capsys: pytest.CaptureFixture[str]) -> None:
    assert leave("devices", "--json") == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == []
    assert printed.err.startswith("No RealSense camera found.")
    assert len(printed.err.splitlines()) > 1
    assert leave("devices") == 0
    assert capsys.readouterr().out == ""


def test_cameras_are_listed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    camera = SoftwareCamera("123")
    monkeypatch.setattr(ConnectedDevices, "devices", lambda _: (camera.device,))
    assert leave("devices") == 0
    printed = capsys.readouterr()
    assert "123" in printed.out
    assert "USB 3.2" in printed.out
    assert "41" in printed.out
    assert printed.err == ""
    assert leave("devices", "--json") == 0
    (listed,) = json.loads(capsys.readouterr().out)
    assert listed["model"] == "Intel RealSense D435"
    camera.device.update_info(realsense().camera_info.usb_type_descriptor, "2.1")
    assert leave("devices") == 0
    assert "USB 2" in capsys.readouterr().err
