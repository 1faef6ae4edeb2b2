"""Command-line verbs of the inspect room."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import typer


def inspect(  # noqa: PLR0913, PLR0917 - one parameter for each option of the verb
    source: Annotated[Path, typer.Argument(help="Folder of parts, one part's folder, or one recording.")],
    recipe: Annotated[Path | None, typer.Option(help="Recipe; SOURCE/recipe.toml if not given.")] = None,
    cell: Annotated[Path | None, typer.Option(help="Cell file; the one that the recipe names if not given.")] = None,
    bind: Annotated[str | None, typer.Option(help="Publish verdicts here, such as tcp://127.0.0.1:5556.")] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Let --bind leave this machine, unencrypted.")] = False,
    wait: Annotated[
        float, typer.Option(min=0, help="Seconds to wait for a first listener before the first part.")
    ] = 2.0,
    out: Annotated[Path | None, typer.Option(help="New folder for results; SOURCE/inspections/TIME if none.")] = None,
    frames: Annotated[int | None, typer.Option(help="Use only the first so many frames of each part.")] = None,
    model: Annotated[
        Path | None, typer.Option(help="Folder of a trained model that judges too, see depthcell train.")
    ] = None,
    no_report: Annotated[bool, typer.Option("--no-report", help="Write no HTML report.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one verdict a line as JSON.")] = False,
) -> None:
    """Judge recorded parts: OK, NOK or CANNOT-TELL, with findings in millimetres, on the wire and in a report.

    Example: depthcell inspect runs/sim --bind tcp://127.0.0.1:5556
    """
    from rich.console import Console
    from rich.progress import Progress

    from depthcell.inspect.inspection_run import RunPlan, run_inspection
    from depthcell.inspect.publisher import NoOutlet, VerdictPublisher
    from depthcell.inspect.terminal import delivery_in_words, verdict_table, wide_console
    from depthcell.inspect.verdict import Verdict, to_json
    from depthcell.inspect.wire import read_endpoint

    plan = RunPlan(source, recipe, cell, out, frames, not no_report, wait, model)
    outlet = NoOutlet() if bind is None else VerdictPublisher(read_endpoint(bind, "--bind", insecure=insecure))
    notes = Console(stderr=True, soft_wrap=True, highlight=False)
    with Progress(console=notes, transient=True, disable=not notes.is_terminal) as progress:
        task = progress.add_task("inspect", total=None)

        def show(verdict: Verdict) -> None:
            if as_json:
                print(to_json(verdict).decode(), flush=True)
            progress.advance(task)

        result = run_inspection(plan, outlet, show, lambda count: progress.update(task, total=count))
    if not as_json:
        wide_console().print(verdict_table(result.verdicts))
    if isinstance(outlet, VerdictPublisher):
        notes.print(delivery_in_words(outlet.delivery, outlet.endpoint), markup=False)
    notes.print(f"results: {result.report or result.folder}", markup=False)


def measure(
    source: Annotated[Path, typer.Argument(help="Folder of parts, one part's folder, or one recording.")],
    recipe: Annotated[Path | None, typer.Option(help="Recipe with gauges; SOURCE/recipe.toml if not given.")] = None,
    cell: Annotated[Path | None, typer.Option(help="Cell file; the one that the recipe names if not given.")] = None,
    report: Annotated[
        Path | None, typer.Option(help="New folder for reports, turnable views, pictures, CSV, JSON and Q-DAS.")
    ] = None,
    qif: Annotated[Path | None, typer.Option(help="QIF 3.0 results file to write.")] = None,
    frames: Annotated[int | None, typer.Option(help="Use only the first so many frames of each part.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one part a line as JSON.")] = False,
) -> None:
    """Measure recorded parts by the recipe's gauges: millimetres with intervals, limits, decisions.

    Example: depthcell measure runs/sim --recipe examples/bracket.toml --report out/ --qif out/results.qif
    """
    from depthcell.inspect.inspection_run import RunPlan
    from depthcell.inspect.measure_verb import Wanted, measure_parts

    measure_parts(RunPlan(source, recipe, cell, None, frames), Wanted(report, qif), json_wanted=as_json)


def evaluate(  # noqa: PLR0913, PLR0917 - one parameter for each option of the verb
    source: Annotated[
        Path, typer.Argument(metavar="DIR", help="Data set in MVTec 3D-AD layout; with --pod a simulated run.")
    ],
    method: Annotated[
        Literal["rgb", "depth", "fused"] | None,
        typer.Option(help="Judge by colour edges, by surface normals, or by both (if not given)."),
    ] = None,
    maps: Annotated[
        Path | None, typer.Option(help="Write each anomaly map there as float32 TIFF, named like its input.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the bootstrap intervals; 0 if not given.")] = None,
    seeds: Annotated[
        int | None, typer.Option(min=2, help="Evaluate so many times, each on its own draw of the good parts.")
    ] = None,
    false_reject: Annotated[
        float | None, typer.Option(help="Share of good parts that may be rejected; 0.05 if not given.")
    ] = None,
    pod: Annotated[
        bool, typer.Option("--pod", help="Probability of detection by size, from a simulated run and its truth.")
    ] = False,
    recipe: Annotated[Path | None, typer.Option(help="With --pod: recipe; DIR/recipe.toml if not given.")] = None,
    cell: Annotated[Path | None, typer.Option(help="With --pod: cell file; the recipe's if not given.")] = None,
    model: Annotated[Path | None, typer.Option(help="With --pod: folder of a model that judges too.")] = None,
    out: Annotated[Path | None, typer.Option(help="With --pod: new folder; DIR/inspections/TIME if none.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Measure how well depthcell detects: on a data set, or by size of defect on a simulated run.

    A data set: image AUROC, pixel AUROC, AUPRO, overall and per defect, with intervals. The baseline learns from
    train/good, chooses its threshold by good parts of train and validation alone, and judges test.

    A simulated run: the size of each kind of defect that is found in 90 % of cases, with 95 % confidence (a90/95);
    with --model by a trained model too.

    Example: depthcell evaluate ../shared/data/mvtec3d_subset/cable_gland --maps runs/maps

    Example: depthcell evaluate runs/sim --pod --json
    """
    if pod:
        of_data_sets = {"method": method, "maps": maps, "seed": seed, "seeds": seeds, "false-reject": false_reject}
        _refuse_options("--pod needs no such option", of_data_sets)
        from depthcell.inspect.inspection_run import RunPlan
        from depthcell.inspect.pod_verb import evaluate_detection

        evaluate_detection(RunPlan(source, recipe, cell, out, model=model), json_wanted=as_json)
        return
    _refuse_options("serves --pod alone", {"recipe": recipe, "cell": cell, "model": model, "out": out})
    from depthcell.models.baseline import BaselineSettings, Method
    from depthcell.models.evaluation import FALSE_REJECT, EvaluationPlan
    from depthcell.models.evaluation_verb import evaluate_data_set

    settings = BaselineSettings(method=Method(method or "fused"))
    share = FALSE_REJECT if false_reject is None else false_reject
    evaluate_data_set(EvaluationPlan(source, settings, seed or 0, maps, share), seeds=seeds, json_wanted=as_json)


def verify(  # noqa: PLR0913, PLR0917 - one parameter for each option of the verb
    source: Annotated[Path | None, typer.Argument(help="Folder of recordings of the artefact.")] = None,
    cell: Annotated[Path, typer.Option(help="Cell file.")] = Path("cell.json"),
    artefact: Annotated[
        str | None, typer.Option(help="Such as sphere:50mm; SOURCE/artefact.toml if not given.")
    ] = None,
    limit: Annotated[
        list[str] | None, typer.Option(help="Such as PS=0.1mm; the cell's own statement where none is given.")
    ] = None,
    drift: Annotated[bool, typer.Option("--drift", help="The one-minute check: do the cameras still agree?")] = False,
    reference: Annotated[
        bool, typer.Option("--reference", help="With --drift: record what later ones compare.")
    ] = False,
    on_chip: Annotated[str | None, typer.Option(help="Serial number: ask that camera for its own health.")] = None,
    valid_days: Annotated[float | None, typer.Option(min=0, help="How long the check holds.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for results; one among the recordings if none.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Leave the cell's health file as it is.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Test a calibrated cell: on a certified artefact, for drift, or by a camera's own health.

    Leaves with exit code 1 if the cell does not pass; no part is OK on it from then on.

    Example: depthcell verify --cell cell.json runs/cal/plate

    Example: depthcell verify --cell cell.json --drift runs/monday/sphere --artefact sphere:25mm
    """
    from depthcell.calib.verify.health import VALID_DAYS
    from depthcell.errors import DepthcellError
    from depthcell.inspect.drift_run import DriftPlan
    from depthcell.inspect.verification import VerifyPlan
    from depthcell.inspect.verify_verbs import drift_verb, on_chip_verb, verify_verb

    days = VALID_DAYS if valid_days is None else valid_days
    if on_chip is not None:
        raise typer.Exit(on_chip_verb(cell, on_chip, valid_days=days, json_wanted=as_json))
    if source is None:
        raise DepthcellError("verify: name the folder of recordings of the artefact, such as runs/cal/plate")
    if drift or reference:
        checked = DriftPlan(cell, source, artefact, reference, days, not dry_run)
        raise typer.Exit(drift_verb(checked, json_wanted=as_json))
    tested = VerifyPlan(cell, source, artefact, tuple(limit or ()), out, days, not dry_run)
    raise typer.Exit(verify_verb(tested, json_wanted=as_json))


def listen(
    connect: Annotated[str, typer.Option(help="Where verdicts are published.")] = "tcp://127.0.0.1:5556",
    count: Annotated[int | None, typer.Option(min=1, help="Stop after so many verdicts, lost ones included.")] = None,
    timeout: Annotated[
        float | None, typer.Option(min=0, help="Stop when nothing was heard for so many seconds.")
    ] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Let --connect leave this machine.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one verdict a line as JSON.")] = False,
) -> None:
    """Hear verdicts as a line controller does: ACCEPT on a good OK alone, REJECT on everything in doubt.

    Leaves with exit code 1 if a verdict was lost or refused, or fewer than --count came.

    Example: depthcell listen --connect tcp://127.0.0.1:5556
    """
    from depthcell.inspect.listener import VerdictListener
    from depthcell.inspect.terminal import Hearing
    from depthcell.inspect.wire import read_endpoint

    endpoint = read_endpoint(connect, "--connect", insecure=insecure)
    hearing = Hearing(as_json=as_json, wanted=count)
    print(f"listening to {endpoint}; Ctrl-C ends", file=sys.stderr, flush=True)
    try:
        with VerdictListener(endpoint) as listener:
            hearing.follow(listener.events(timeout))
    except KeyboardInterrupt:
        pass  # the usual way to end it
    if not hearing.heard_anything:
        print(f"nothing heard from {endpoint}; start depthcell inspect with --bind {endpoint}", file=sys.stderr)
    if not hearing.is_whole:
        raise typer.Exit(1)


def demo(
    out: Annotated[Path, typer.Option(help="Folder for recordings and results.")] = Path("runs/demo"),
    parts: Annotated[int, typer.Option(min=1, help="Parts on the line, half of them defective.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Decides which parts and defects.")] = 1,
    no_model: Annotated[bool, typer.Option("--no-model", help="Train no model; saves a minute or two.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False,
) -> None:
    """Simulate a line of three cameras, train a model, inspect, tell a controller, and show truth against verdict.

    Example: depthcell demo
    """
    from rich.console import Console

    from depthcell.inspect.demo import DemoPlan, as_json_object, print_result, run_demo
    from depthcell.inspect.terminal import wide_console

    plan = DemoPlan(out, parts, seed, taught=0) if no_model else DemoPlan(out, parts, seed)
    result = run_demo(plan, Console(stderr=as_json, highlight=False, soft_wrap=True))
    if as_json:
        print(json.dumps(as_json_object(result)))
    else:
        print_result(result, wide_console())


def simulate(  # noqa: PLR0913, PLR0917 - one parameter for each option of the verb
    part: Annotated[
        str | None,
        typer.Option(help="bracket (if not given), flange, sheet, shaft, weld, or a mesh file (STL, PLY, OBJ)."),
    ] = None,
    mesh_unit: Annotated[
        str | None, typer.Option(help="Length unit of a mesh file: mm (if not given), m or inch.")
    ] = None,
    parts: Annotated[
        int | None, typer.Option(help="Parts on the line, 12 if not given; with --calibration places of the board, 40.")
    ] = None,
    first: Annotated[
        int | None, typer.Option(help="Number of the first part, 1 if not given: other parts of the same cell.")
    ] = None,
    cameras: Annotated[int, typer.Option(help="1 to 6.")] = 3,
    camera_model: Annotated[str, typer.Option(help="D405, D415, D435 or D455.")] = "D405",
    seed: Annotated[int, typer.Option(help="Decides everything that chance decides.")] = 0,
    frames: Annotated[
        int | None, typer.Option(help="Frames of each camera for each part, 8 if not given; for each place, 2.")
    ] = None,
    defect_rate: Annotated[
        float | None, typer.Option(help="Share of defective parts, 0 to 1; 0.5 if not given.")
    ] = None,
    defects: Annotated[
        str | None, typer.Option(help="Kinds to choose from, with commas between; all if not given.")
    ] = None,
    depth_units_mm: Annotated[float, typer.Option(help="What one count of depth means, mm.")] = 0.1,
    golden: Annotated[
        int | None, typer.Option(help="Good parts to learn colour and process variation from; 10 if not given.")
    ] = None,
    calibration: Annotated[
        bool, typer.Option("--calibration", help="Record a board and artefacts instead, to calibrate the cell with.")
    ] = False,
    motion: Annotated[
        str | None, typer.Option(help="Record one part in motion: conveyor:60 (mm/s) or turntable:20 (degrees/s).")
    ] = None,
    board: Annotated[
        str | None, typer.Option(help="With --calibration: the board; charuco:9x6:30mm if not given.")
    ] = None,
    jobs: Annotated[int, typer.Option(help="Processes; 0 takes one for each core.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("runs/sim"),
    force: Annotated[bool, typer.Option("--force", help="Write into a folder that holds other things.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a summary as JSON.")] = False,
) -> None:
    """Record parts in a simulated cell, with the truth beside each recording, and the cell and recipe to inspect them.

    Example: depthcell simulate --part bracket --parts 12 --cameras 3 --camera-model D405 --seed 7 --out runs/sim

    Example: depthcell simulate --parts 40 --first 1001 --defect-rate 0 --golden 0 --seed 7 --out runs/good

    Example: depthcell simulate --calibration --cameras 4 --camera-model D415 --seed 3 --out runs/cal

    Example: depthcell simulate --motion conveyor:60 --out runs/belt
    """
    from depthcell.acquisition.simulator.station import StationPlan
    from depthcell.inspect import simulated_station as station
    from depthcell.processes import default_jobs

    if calibration:
        _refuse_options(
            "with --calibration no part is simulated",
            {
                "part": part,
                "first": first,
                "mesh-unit": mesh_unit,
                "defect-rate": defect_rate,
                "defects": defects,
                "golden": golden,
                "motion": motion,
            },
        )
        from depthcell.acquisition.simulator.calibrationcell import CalibrationPlan
        from depthcell.calib import simulated_run

        places = simulated_run.DEFAULT_PLACES if parts is None else parts
        shots = simulated_run.DEFAULT_FRAMES if frames is None else frames
        asked = CalibrationPlan(camera_model, cameras, seed, places, shots, depth_units_mm=depth_units_mm)
        run = simulated_run.CalibrationSettings(board or simulated_run.DEFAULT_BOARD, jobs=jobs or default_jobs())
        simulated_run.run_calibration(asked, run, out, force=force, as_json=as_json)
        return
    _refuse_options("only with --calibration is a board shown", {"board": board})
    plan = StationPlan(
        part=part or "bracket",
        camera_model=camera_model,
        cameras=cameras,
        seed=seed,
        mesh_unit=mesh_unit or "mm",
        frames=8 if frames is None else frames,
        defect_rate=0.5 if defect_rate is None else defect_rate,
        defect_kinds=station.parse_kinds(defects or ""),
        depth_units_mm=depth_units_mm,
    )
    if motion is not None:
        from depthcell.inspect.simulated_motion import parse_motion, simulate_moving_part

        _refuse_options(
            "with --motion one good part is recorded",
            {"parts": parts, "first": first, "golden": golden, "defects": defects, "defect-rate": defect_rate},
        )
        folder = simulate_moving_part(plan, parse_motion(motion), out)
        print(json.dumps({"part": str(folder)}) if as_json else f"one moving part in {folder}")
        return
    settings = station.RunSettings(
        parts=12 if parts is None else parts,
        golden=10 if golden is None else golden,
        jobs=jobs or default_jobs(),
        first=1 if first is None else first,
    )
    station.run_station(plan, settings, out, force=force, as_json=as_json)


def _refuse_options(why: str, given: Mapping[str, object]) -> None:
    """Options that would be ignored in silence."""
    from depthcell.errors import DepthcellError

    for name, value in given.items():
        if value is not None:
            raise DepthcellError(f"--{name} {value}: {why}; leave it out")
