"""The cameras connected to this machine, in words; and, where there are none, why not and what to do."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from depthcell.acquisition.camerasettings import SyncRole
from depthcell.acquisition.deviceoptions import SdkDevice, SdkSensor
from depthcell.acquisition.sdk import realsense

USB_DEVICES = Path("/sys/bus/usb/devices")
KERNEL_VERSION = Path("/proc/version")
UDEV_RULE = (
    'SUBSYSTEMS=="usb", ATTRS{idVendor}=="8086", MODE="0666" in /etc/udev/rules.d/99-realsense.rules, then '
    "`sudo udevadm control --reload-rules && sudo udevadm trigger`"
)


@dataclass(frozen=True, slots=True)
class DeviceSummary:
    """One connected camera. What it does not tell is None.

    Attributes:
        serial: serial number; model: as it names itself; firmware: version.
        usb: type of the connection as negotiated, such as "3.2" or "2.1".
        sync: its part in hardware synchronisation now.
        asic_temperature_c: of the depth processor; projector_temperature_c: of the projector.
    """

    serial: str
    model: str
    firmware: str | None
    usb: str | None
    sync: str | None
    asic_temperature_c: float | None
    projector_temperature_c: float | None

    @property
    def is_slow(self) -> bool:
        """Whether it hangs on USB 2, where most sizes and rates are not to be had."""
        return self.usb is not None and self.usb.startswith("2")


def summarize(device: SdkDevice) -> DeviceSummary:
    """What a camera tells of itself; a camera that is streaming answers too."""
    info = realsense().camera_info
    sensors = list(device.query_sensors())
    sync = _option(sensors, "inter_cam_sync_mode")
    return DeviceSummary(
        serial=_info(device, info.serial_number) or "",
        model=_info(device, info.name) or "",
        firmware=_info(device, info.firmware_version),
        usb=_info(device, info.usb_type_descriptor),
        sync=None if sync is None else SyncRole(min(int(sync), SyncRole.GENLOCK)).name.lower().replace("_", "-"),
        asic_temperature_c=_option(sensors, "asic_temperature"),
        projector_temperature_c=_option(sensors, "projector_temperature"),
    )


def _info(device: SdkDevice, name: Any) -> str | None:
    return str(device.get_info(name)) if device.supports(name) else None


def _option(sensors: list[SdkSensor], name: str) -> float | None:
    option = getattr(realsense().option, name)
    sensor = next((sensor for sensor in sensors if sensor.supports(option)), None)
    return None if sensor is None else _tried(lambda: float(sensor.get_option(option)))


def _tried(ask: Callable[[], float]) -> float | None:
    try:
        return ask()
    except RuntimeError:
        # Some firmware tells its temperatures only while it streams.
        return None


def why_none(usb_devices: Path = USB_DEVICES, kernel_version: Path = KERNEL_VERSION) -> tuple[str, ...]:
    """Reasons why no camera is found, the likeliest first, each with what to do.

    Looks at what the operating system sees of USB: it knows of cameras that the SDK may not open.
    """
    if not usb_devices.is_dir():
        return (
            "This machine shows no USB bus: inside a container or virtual machine hand the bus through "
            "(docker run --device /dev/bus/usb, or USB passthrough of the hypervisor).",
        )
    seen = [folder for folder in sorted(usb_devices.iterdir()) if "RealSense" in _line(folder / "product")]
    if seen:
        where = ", ".join(f"{_line(folder / 'product')} at {folder.name}" for folder in seen)
        return (
            f"The operating system sees {where}, but it cannot be opened: close other programs that use it.",
            f"Give yourself permission with the udev rule {UDEV_RULE}.",
        )
    reasons = [
        "Plug the camera into a USB 3 port (blue, or marked SS) with the cable that came with it; cables for charging "
        "alone and long ones fail.",
        "If it hangs on a hub, plug it into the machine itself, or power the hub.",
    ]
    if "microsoft" in _line(kernel_version).lower():
        reasons.insert(0, "This is WSL: attach the camera from Windows with `usbipd attach --wsl --busid <id>`.")
    return tuple(reasons)


def _line(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
