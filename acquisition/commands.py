"""Command-line verbs of the acquisition room."""

import json
import sys
from typing import Annotated

import typer


def devices(as_json: Annotated[bool, typer.Option("--json", help="Print a list as JSON.")] = False) -> None:
    """List the RealSense cameras connected to this machine. Without one the list is empty, and the exit code still 0.

    Example: depthcell devices --json
    """
    from dataclasses import asdict

    from depthcell.acquisition import devicelist
    from depthcell.acquisition.devicesource import ConnectedDevices

    found = [devicelist.summarize(device) for device in ConnectedDevices().devices()]
    if as_json:
        print(json.dumps([asdict(each) for each in found], indent=2))
    for each in found:
        if not as_json:
            heat = "" if each.asic_temperature_c is None else f"  {each.asic_temperature_c:.0f} °C"
            known = f"USB {each.usb or '?'}  firmware {each.firmware or '?'}  sync {each.sync or 'none'}"
            print(f"{each.serial}  {each.model}  {known}{heat}")
        if each.is_slow:
            print(f"{each.serial}: runs on USB 2; use a USB 3 port and cable for full size and rate", file=sys.stderr)
    if not found:
        print("No RealSense camera found.", *devicelist.why_none(), sep="\n- ", file=sys.stderr)


def record() -> None:
    """Not built yet."""
    raise NotImplementedError
