"""Where cameras come from: the ones on this machine's USB, or, in tests, the SDK's software devices."""

import threading
from collections.abc import Callable
from typing import Protocol

from depthcell.acquisition.deviceoptions import SdkDevice, serial_of
from depthcell.acquisition.sdk import realsense


class DeviceSource(Protocol):
    """Finds devices by serial number, and knows when one came or went."""

    def serials(self) -> tuple[str, ...]:
        """Serial numbers of all devices there are."""
        ...

    def find(self, serial: str) -> SdkDevice | None:
        """The device of this serial number, None while it is not there."""
        ...

    def is_connected(self, device: SdkDevice) -> bool:
        """Whether this very device, as found before, is still there; one that was plugged in again is another."""
        ...

    def wait_for_change(self, timeout_s: float) -> bool:
        """Return True as soon as a device came or went, False after the timeout."""
        ...


class ConnectedDevices:
    """The cameras connected to this machine.

    The SDK calls back when one comes or goes. That may be lost or late (a hub that goes down takes seconds), so it
    only shortens a wait and nothing rests on it alone.
    """

    def __init__(self) -> None:
        self._context = realsense().context()
        self._changed = threading.Event()
        self._context.set_devices_changed_callback(lambda _: self._changed.set())

    def devices(self) -> tuple[SdkDevice, ...]:
        """All devices, in the SDK's order."""
        return tuple(self._context.query_devices())

    def serials(self) -> tuple[str, ...]:
        """See `DeviceSource`."""
        return tuple(serial_of(device) for device in self.devices())

    def find(self, serial: str) -> SdkDevice | None:
        """See `DeviceSource`."""
        return next((device for device in self.devices() if _tells(serial_of, device) == serial), None)

    def is_connected(self, device: SdkDevice) -> bool:
        """See `DeviceSource`."""
        return bool(device.is_connected())

    def wait_for_change(self, timeout_s: float) -> bool:
        """See `DeviceSource`."""
        has_changed = self._changed.wait(timeout_s)
        self._changed.clear()
        return has_changed


def _tells(ask: Callable[[SdkDevice], str], device: SdkDevice) -> str | None:
    """What a device answers; None where it was unplugged between being listed and being asked."""
    try:
        return ask(device)
    except RuntimeError:
        return None
