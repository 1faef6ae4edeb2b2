"""Command-line verbs of the calibration room."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer


def cell(  # noqa: PLR0913, PLR0917 - one parameter for each option of the verb
    source: Annotated[Path, typer.Argument(help="Folder of recordings of the board, one for each camera.")],
    board: Annotated[list[str], typer.Option(help="Board that was shown, such as charuco:9x6:30mm; several are fine.")],
    out: Annotated[Path, typer.Option(help="Cell file to write.")] = Path("cell.json"),
    certificate: Annotated[Path | None, typer.Option(help="Certificate, a PDF; an HTML is written beside it.")] = None,
    name: Annotated[str | None, typer.Option(help="What people call the cell; the folder's name if not given.")] = None,
    pitch_u_um: Annotated[float, typer.Option(help="Standard uncertainty of the board's pitch, micrometres.")] = 3.0,
    board_certificate: Annotated[str | None, typer.Option(help="Number and laboratory of the board's own.")] = None,
    plate: Annotated[Path | None, typer.Option(help="Recordings of a resting plate; SOURCE/plate if there.")] = None,
    volume: Annotated[str | None, typer.Option(help="Work volume, mm, such as 120x80x60; the board's if none.")] = None,
    valid_days: Annotated[float, typer.Option(min=1, help="How long the certificate is to hold.")] = 90.0,
    laboratory: Annotated[str, typer.Option(help="Who issues the certificate.")] = "",
    person: Annotated[str, typer.Option(help="Who answers for it.")] = "",
    tolerate: Annotated[list[str] | None, typer.Option(help="Suspicion that is to be reported only.")] = None,
    jobs: Annotated[int, typer.Option(help="Processes; 0 takes one for each core.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print a summary as JSON.")] = False,
) -> None:
    """Calibrate all cameras of a cell together, from recordings of a board held at many places.

    Example: depthcell calibrate runs/cal --board charuco:9x6:30mm --out cell.json --certificate cell.pdf
    """
    from rich.console import Console
    from rich.progress import Progress

    from depthcell.calib import calibrate_report, calibrate_run

    plan = calibrate_report.planned(source, board, name, pitch_u_um, plate, tolerate or [], jobs)
    request = calibrate_report.requested(board_certificate, volume, valid_days, laboratory, person)
    calibrate_report.check_outputs(out, certificate)
    notes = Console(stderr=True, highlight=False, soft_wrap=True)
    with Progress(console=notes, transient=True, disable=not notes.is_terminal) as progress:
        task = progress.add_task("starting", total=1.0)
        calibrated = calibrate_run.calibrate(
            plan, lambda what, done: progress.update(task, description=what, completed=done)
        )
        written = calibrate_report.write_results(plan, calibrated, request, out, certificate)
    if as_json:
        print(json.dumps(calibrate_report.summary(calibrated, written), indent=2))
    else:
        calibrate_report.print_summary(calibrated, request, written)


def board(
    spec: Annotated[
        str, typer.Argument(help="Such as charuco:9x6:30mm, april:6x6:24mm, circles:9x7:20mm, plate:180x120mm.")
    ],
    out: Annotated[Path | None, typer.Option(help="PDF to write; named after the board if not given.")] = None,
    page: Annotated[str, typer.Option(help="A4, A3, A2, letter, WIDTHxHEIGHT such as 600x400mm, or fit.")] = "A4",
) -> None:
    """Write a board as a PDF to be printed at true scale, with rulers that show whether the printer kept it.

    Example: depthcell calibrate board charuco:9x6:30mm --page A3 --out board.pdf
    """
    from depthcell.calib.target.board_pdf import write_board_pdf

    path = out or Path(f"{spec.replace(':', '_')}.pdf")
    placed = write_board_pdf(spec, path, page)
    size = f"{placed.width_m * 1e3:.0f} x {placed.height_m * 1e3:.0f} mm"
    print(f"{path}: page {size}; print it at 100 % and measure its rulers before use")


def guide(  # noqa: PLR0913, PLR0917 - one parameter for each option of the verb
    source: Annotated[Path, typer.Argument(help="Folder of the recordings made so far.")],
    board: Annotated[list[str], typer.Option(help="Board that was shown, such as charuco:9x6:30mm.")],
    out: Annotated[Path | None, typer.Option(help="Picture to write, PNG; SOURCE/guide.png if not given.")] = None,
    volume: Annotated[str | None, typer.Option(help="Work volume, mm, such as 120x80x60; the board's if none.")] = None,
    live: Annotated[bool, typer.Option("--live", help="Record place after place, until enough is known.")] = False,
    every: Annotated[float, typer.Option(help="Live: seconds to hold the board elsewhere.")] = 4.0,
    seconds: Annotated[float, typer.Option(help="Live: seconds that are recorded at each place.")] = 0.5,
    camera: Annotated[list[str] | None, typer.Option(help="Live: serial number; all connected ones if none.")] = None,
    depth: Annotated[str, typer.Option(help="Live: depth and infrared as WIDTHxHEIGHT@FPS.")] = "848x480@30",
    color: Annotated[str, typer.Option(help="Live: colour as WIDTHxHEIGHT@FPS, or none.")] = "848x480@30",
    jobs: Annotated[int, typer.Option(help="Processes; 0 takes one for each core.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the advice as JSON.")] = False,
) -> None:
    """Say what has been covered, and which place of the board next makes the cell better known at the part.

    With --live it records what it asks for, until one more place would add next to nothing, or Ctrl-C.

    Example: depthcell calibrate guide runs/cal --board charuco:9x6:30mm
    """
    from rich.console import Console

    from depthcell.calib.calibrate_report import volume_mm
    from depthcell.calib.guiding import guide_run
    from depthcell.calib.target.board import Board
    from depthcell.processes import default_jobs

    boards, picture = tuple(Board.parse(text) for text in board), out or source / "guide.png"
    sides_mm = None if volume is None else volume_mm(volume)
    jobs = jobs or default_jobs()
    if live:
        from depthcell.acquisition.camerasettings import StreamSettings
        from depthcell.acquisition.devicesource import ConnectedDevices
        from depthcell.calib.guiding import guide_live

        asked = guide_live.LiveGuide(source, boards, picture, sides_mm, every, seconds, jobs=jobs)
        devices, color_size = ConnectedDevices(), None if color == "none" else StreamSettings.parse(color)
        cameras = guide_live.board_cameras(devices, camera, StreamSettings.parse(depth), color_size)
        with guide_live.on_terminal(quiet=as_json) as person:
            advice = guide_live.guide_live(asked, cameras, devices, person)
    else:
        with Console(stderr=True).status("looking for boards"):
            advice = guide_run.advise_from(source, boards, sides_mm, picture, jobs)
    if as_json:
        told = {n: getattr(advice, n, None) for n in ("sentence", "enough", "now_mm", "then_mm", "streams")}
        print(json.dumps({**told, "picture": None if advice is None else str(picture)}, indent=2))
    elif advice is not None:
        print(f"picture: {picture}" if live else f"{advice.sentence}\npicture: {picture}")


def handeye(
    robot: Annotated[Path, typer.Argument(help="Poses of the hand in the base: t, x, y, z, qx, qy, qz, qw a line.")],
    camera: Annotated[Path, typer.Argument(help="Poses of the target in the camera, in the same form.")],
    mount: Annotated[str, typer.Option(help="Where the camera is: hand, or beside the robot.")],
    out: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
    camera_poses: Annotated[str, typer.Option(help="target-in-camera or camera-in-target.")] = "target-in-camera",
    paired: Annotated[bool, typer.Option("--paired", help="Lines belong together; times are not used.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Find where a camera sits on a robot, or beside it, with its uncertainty and the offset of their clocks.

    Example: depthcell calibrate handeye robot.csv camera.csv --mount hand
    """
    from rich.console import Console

    from depthcell.calib.calibrate_report import chosen
    from depthcell.calib.robot import handeye as found_by
    from depthcell.calib.robot import handeye_report
    from depthcell.files import write_text

    settings = found_by.HandEyeSettings(
        chosen(found_by.Mount, mount, "--mount"),
        chosen(found_by.CameraPoses, camera_poses, "--camera-poses"),
        paired=paired,
    )
    result = found_by.calibrate_handeye(robot, camera, settings)
    if out is not None:
        write_text(out, handeye_report.handeye_json(result))
    if as_json:
        print(handeye_report.handeye_json(result), end="")
        return
    console = Console(highlight=False)
    console.print(handeye_report.handeye_table(result))
    console.print(handeye_report.handeye_sentence(result), soft_wrap=True)


def seal(path: Annotated[Path, typer.Argument(help="Cell file that someone has reviewed.")]) -> None:
    """Seal a cell file with this station's key, so that it is taken here.

    Example: depthcell calibrate seal cell.json
    """
    from depthcell.calib.cellfile import seal_cell

    print(f"{path}: sealed by {seal_cell(path)}")


def trust(key: Annotated[Path, typer.Argument(help="Another station's public key, its station.pub.")]) -> None:
    """Take what another station sealed; compare the fingerprint with what its owner tells you.

    Example: depthcell calibrate trust station.pub
    """
    from depthcell.calib import seal as keys

    print(f"trusted from now on: {keys.trust(key)}")


def check(path: Annotated[Path, typer.Argument(help="Certificate, PDF or HTML, or a cell file.")]) -> None:
    """Check the signature of a certificate or the seal of a cell file.

    Example: depthcell calibrate check cell.pdf
    """
    from depthcell.calib.cell import Cell
    from depthcell.calib.certify.certificate import verify_certificate

    if path.suffix == ".json":
        print(f"{path}: sealed and unchanged; cell {Cell.load(path).sha256}")
    else:
        print(f"{path}: unchanged since it was signed by {verify_certificate(path)}")


def type1(
    table: Annotated[Path, typer.Argument(help="CSV with the columns reference and value, one measurement a line.")],
    tolerance: Annotated[float, typer.Option(help="Width of the part's tolerance, in the values' unit.")],
    resolution: Annotated[
        float | None, typer.Option(help="Smallest step of the gauge; from the values if none.")
    ] = None,
    unit: Annotated[str, typer.Option(help="Of the values.")] = "mm",
    confidence: Annotated[float, typer.Option(help="Of every interval.")] = 0.95,
    out: Annotated[Path | None, typer.Option(help="Report to write: .html, .png, .svg, .pdf or .json.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the study as JSON.")] = False,
) -> None:
    """Type-1 study of one gauge: Cg, Cgk, bias, repeatability, resolution; linearity over several references.

    Leaves with exit code 1 if the gauge is not capable.

    Example: depthcell study type1 bore.csv --tolerance 0.2 --out bore.html
    """
    from depthcell.calib.study import study_type1

    settings = study_type1.Type1Settings(tolerance, resolution, confidence=confidence, unit=unit)
    study = study_type1.study_type1(table, settings)
    _show(study, out, as_json)
    if not study.capable:
        raise typer.Exit(1)


def grr(
    table: Annotated[Path, typer.Argument(help="CSV with the columns part, operator, trial and value.")],
    tolerance: Annotated[float | None, typer.Option(help="Width of the part's tolerance, in the values' unit.")] = None,
    pooling: Annotated[float, typer.Option(help="Significance above which the interaction is pooled.")] = 0.25,
    unit: Annotated[str, typer.Option(help="Of the values.")] = "mm",
    confidence: Annotated[float, typer.Option(help="Of every interval.")] = 0.95,
    out: Annotated[Path | None, typer.Option(help="Report to write: .html, .png, .svg, .pdf or .json.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the study as JSON.")] = False,
) -> None:
    """Repeatability and reproducibility by analysis of variance, with the number of distinct categories.

    Leaves with exit code 1 if the gauge is not acceptable.

    Example: depthcell study grr flatness.csv --tolerance 0.2 --out flatness.html
    """
    from depthcell.calib.study import study_grr

    settings = study_grr.GrrSettings(tolerance, pooling=pooling, confidence=confidence, unit=unit)
    study = study_grr.study_grr(table, settings)
    _show(study, out, as_json)
    if study.verdict == "not acceptable":
        raise typer.Exit(1)


def capability(  # noqa: PLR0913, PLR0917 - one parameter for each option of the verb
    table: Annotated[Path, typer.Argument(help="CSV with the column value, and subgroup if there are any, in time.")],
    lower: Annotated[float | None, typer.Option(help="Lower limit of the part.")] = None,
    upper: Annotated[float | None, typer.Option(help="Upper limit of the part.")] = None,
    rules: Annotated[str, typer.Option(help="nelson or western-electric.")] = "nelson",
    unit: Annotated[str, typer.Option(help="Of the values.")] = "mm",
    confidence: Annotated[float, typer.Option(help="Of every interval.")] = 0.95,
    out: Annotated[Path | None, typer.Option(help="Report to write: .html, .png, .svg, .pdf or .json.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the study as JSON.")] = False,
) -> None:
    """Cp, Cpk, Pp and Ppk with their intervals, control chart and run rules.

    Example: depthcell study capability bore.csv --lower 11.9 --upper 12.1 --out bore.html
    """
    from depthcell.calib.study import study_capability

    settings = study_capability.CapabilitySettings(lower, upper, rules=rules, confidence=confidence, unit=unit)
    _show(study_capability.study_capability(table, settings), out, as_json)


def plan(
    camera: Annotated[str, typer.Option(help="D405, D415, D435 or D455.")],
    distance: Annotated[str, typer.Option(help="From camera to part, such as 150mm.")],
    frames: Annotated[int, typer.Option(min=1, help="Depth frames that are averaged.")] = 30,
    defect: Annotated[str, typer.Option(help="dent:10mm, bump:8mm or scratch:0.3mm (its width).")] = "dent:10mm",
    out: Annotated[Path | None, typer.Option(help="Picture to write, PNG.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Say what a camera at a distance will see, before anyone buys it: field of view, noise, smallest defect.

    Example: depthcell plan --camera D405 --distance 150mm --frames 30 --defect dent:10mm
    """
    from depthcell.calib.planning import plan as planner
    from depthcell.calib.planning import plan_report
    from depthcell.calib.target.board_text import parse_length_m

    kind, size_m = planner.parse_defect(defect)
    distance_m = parse_length_m(distance, f"--distance {distance}")
    request = planner.PlanRequest(camera, distance_m, frames, kind, size_m)
    answer = planner.plan(request)
    if out is not None:
        plan_report.write_plan_picture(request, out)
    if as_json:
        print(plan_report.plan_json(answer), end="")
        return
    for what, value in plan_report.plan_lines(answer):
        print(f"{what:<20}{value}")
    if out is not None:
        print(f"picture: {out}", file=sys.stderr)


def _show(study: Any, out: Path | None, as_json: bool) -> None:
    from rich.console import Console

    from depthcell.calib.study import study_report

    if out is not None:
        study_report.write_study(study, out)
    if as_json:
        print(study_report.study_json(study), end="")
        return
    console = Console(highlight=False)
    for each in study_report.study_tables(study):
        console.print(each)
    console.print(study_report.study_sentence(study), soft_wrap=True)
    if out is not None:
        print(f"report: {out}", file=sys.stderr)
