"""Command-line verbs of the acquisition room."""

import json
import sys
from pathlib import Path
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


def record(  # noqa: PLR0913, PLR0917 - one parameter for each option of the verb
    out: Annotated[Path, typer.Option(help="Folder of the part; made if it is not there.")],
    camera: Annotated[
        list[str] | None, typer.Option(help="Serial number; once for each camera. All connected ones if not given.")
    ] = None,
    seconds: Annotated[float | None, typer.Option(help="How long; until Ctrl-C if not given.")] = None,
    depth: Annotated[str, typer.Option(help="Depth stream as WIDTHxHEIGHT@FPS, or none.")] = "848x480@30",
    color: Annotated[str, typer.Option(help="Colour stream as WIDTHxHEIGHT@FPS, or none.")] = "848x480@30",
    infrared: Annotated[
        str, typer.Option(help="Left infrared stream as WIDTHxHEIGHT@FPS, or none; a calibration needs it.")
    ] = "none",
    master: Annotated[str | None, typer.Option(help="Camera that triggers the others, which become slaves.")] = None,
    genlock: Annotated[bool, typer.Option("--genlock", help="All wait for an outside trigger.")] = False,
    preset: Annotated[Path | None, typer.Option(help="Advanced-mode JSON file, loaded into every camera.")] = None,
    exposure_us: Annotated[int | None, typer.Option(help="Depth exposure; as the camera has it if not given.")] = None,
    gain: Annotated[int | None, typer.Option(help="Depth gain; needs --exposure-us.")] = None,
    emitter: Annotated[bool | None, typer.Option(help="Projector on or off.")] = None,
    laser_mw: Annotated[int | None, typer.Option(help="Power of the projector, milliwatts.")] = None,
    reserve_mb: Annotated[int, typer.Option(help="Disk that stays free.")] = 1000,
    backlog_s: Annotated[float, typer.Option(help="End when frames are this late on disk; a kill loses them.")] = 0.75,
    raw: Annotated[bool, typer.Option("--raw", help="Do not pack images as PNG.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a summary as JSON.")] = False,
) -> None:
    """Record connected cameras, one genuine RealSense recording for each, until the time is over or Ctrl-C.

    Example: depthcell record --out runs/line/part_001 --seconds 2 --master 123456789012
    """
    from dataclasses import asdict

    from rich.console import Console

    from depthcell.acquisition import camerasettings, recorder
    from depthcell.acquisition.devicesource import ConnectedDevices

    def stream(text: str) -> camerasettings.StreamSettings | None:
        return None if text == "none" else camerasettings.StreamSettings.parse(text)

    source = ConnectedDevices()
    serials = tuple(camera or source.serials())
    cameras = [
        camerasettings.CameraSettings(
            serial,
            stream(depth),
            stream(color),
            role,
            preset,
            camerasettings.ExposureSettings(exposure_us, gain) if exposure_us or gain else None,
            emitter=emitter,
            laser_power_mw=laser_mw,
            infrared=stream(infrared),
        )
        for serial, role in camerasettings.sync_roles(serials, master, genlock).items()
    ]
    settings = recorder.RecordSettings(out, seconds, reserve_mb * 1_000_000, not raw, backlog_s)
    with Console(stderr=True).status("opening cameras") as status, recorder.stopped_by_signals() as should_stop:
        summary = recorder.record(cameras, settings, source, should_stop, lambda progress: status.update(str(progress)))
    if as_json:
        print(json.dumps(asdict(summary), default=str, indent=2))
        return
    for each in summary.cameras:
        files = ", ".join(path.name for path in each.paths) or "no file"
        print(f"{each.serial}  {files}  {each.written} frames, {each.dropped} dropped by the camera")
    print(f"{summary.folder}: {summary.duration_s:.1f} s, {summary.size_bytes / 1e6:.0f} MB")
