"""The native libraries load on a machine without libusb, and say what to install where they are missing."""

import ctypes
import subprocess
import sys

import pytest

from depthcell.acquisition import sdk
from depthcell.errors import DepthcellError


def test_realsense_and_open3d_load_and_repeat() -> None:
    rs, o3d = sdk.realsense(), sdk.open3d()
    assert rs is sdk.realsense()
    assert o3d is sdk.open3d()
    assert rs.software_device
    assert o3d.t.geometry.RaycastingScene


def test_realsense_loads_alone_in_a_fresh_process_that_treats_warnings_as_errors() -> None:
    code = "from depthcell.acquisition import sdk; print(sdk.realsense().__version__)"
    run = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("2.")


def test_missing_package_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyrealsense2", None)
    sdk._imported.cache_clear()
    try:
        with pytest.raises(DepthcellError, match="pip install pyrealsense2"):
            sdk.realsense()
    finally:
        sdk._imported.cache_clear()


def test_missing_libusb_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing_loads(name: str, mode: int = 0) -> ctypes.CDLL:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", nothing_loads)
    with pytest.raises(DepthcellError, match="pip install libusb-package"):
        sdk._preload_libusb.__wrapped__()
