"""The two native libraries that need care before they load, pyrealsense2 and open3d, each imported through here.

Both are linked against libusb-1.0 and refuse to import without it. A machine without the system package gets the copy
that `libusb-package` carries, loaded for the whole process first, so that the linker finds it under its own name.
"""

import ctypes
import importlib
from functools import cache
from types import ModuleType

from depthcell.errors import DepthcellError

LIBUSB_NAME = "libusb-1.0.so.0"


def realsense() -> ModuleType:
    """The module `pyrealsense2`; the first call takes about 0.1 s.

    Raises:
        DepthcellError: pyrealsense2 or a library it needs is missing.
    """
    return _imported("pyrealsense2")


def open3d() -> ModuleType:
    """The module `open3d`; the first call takes about 2 s.

    Raises:
        DepthcellError: open3d or a library it needs is missing.
    """
    return _imported("open3d")


@cache
def _imported(name: str) -> ModuleType:
    _preload_libusb()
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DepthcellError(f"{name} cannot be loaded ({error}); install it with: pip install {name}") from error


@cache
def _preload_libusb() -> None:
    """Make libusb known to the linker: the system's where there is one, else the copy in `libusb-package`."""
    if _is_loaded(LIBUSB_NAME):
        return
    try:
        libusb_package = importlib.import_module("libusb_package")
        ctypes.CDLL(str(libusb_package.get_library_path()), mode=ctypes.RTLD_GLOBAL)
    except (ImportError, OSError) as error:
        raise DepthcellError(
            f"libusb-1.0 cannot be loaded ({error}); install it with: pip install libusb-package"
        ) from error


def _is_loaded(library: str) -> bool:
    try:
        ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
    except OSError:
        return False
    return True
