"""What a finished calibration has to say, put into a certificate."""

import importlib.metadata
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from depthcell.calib.calibrate_run import Calibrated, CalibrationPlan
from depthcell.calib.certify.certificate_content import (
    CertificateContent,
    Check,
    Coverage,
    Issuer,
    ModelChoice,
    OutlierCount,
    ReferenceBoard,
)
from depthcell.calib.certify.certificate_pictures import difference_maps, pictures_of
from depthcell.calib.certify.certificate_results import certified_camera, results_of
from depthcell.calib.certify.uncertaintymap import (
    MapSettings,
    UncertaintyMap,
    Volume,
    part_uncertainties,
    uncertainty_map,
)
from depthcell.calib.observation import Observation
from depthcell.calib.solving.rig import RigSolution
from depthcell.calib.solving.validation import StreamCheck
from depthcell.calib.target.board import Board
from depthcell.errors import DepthcellError
from depthcell.files import sha256_of_file

MODEL_WORDS = {
    "none": "pinhole",
    "brown_conrady": "OpenCV, 5 coefficients",
    "rational": "OpenCV, 8 coefficients",
    "thin_prism": "OpenCV, 12 coefficients",
    "factory": "as the device states it",
}
PACKAGES = ("numpy", "scipy", "opencv-python-headless", "pyceres", "pyrealsense2")
CONSISTENCY_LIMIT = 2.0
"""Two halves that differ by more than twice what their covariances predict contradict the stated intervals."""


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """What a person adds to the data.

    Attributes:
        issuer: who answers for it.
        board_certificate: number and laboratory of the board's own certificate; None where it has none.
        valid_days: how long the certificate is meant to hold.
        volume_mm: size of the work volume along x, y, z of the cell, standing on the origin board's plane about its
            middle; None takes the board's size, half as high as its shorter side.
        frames: averaged for a point whose uncertainty is stated.
    """

    issuer: Issuer = field(default_factory=Issuer)
    board_certificate: str | None = None
    valid_days: float = 90.0
    volume_mm: tuple[float, float, float] | None = None
    frames: int = 30


def work_volume(board: Board, volume_mm: tuple[float, float, float] | None) -> Volume:
    """Where parts lie: `volume_mm` above the origin board's plane, or the board's own size.

    Raises:
        DepthcellError: a side is not positive.
    """
    if volume_mm is not None and min(volume_mm) <= 0:
        raise DepthcellError(f"--volume {'x'.join(f'{side:g}' for side in volume_mm)}: every side must be positive")
    if volume_mm is None:
        across, down = np.ptp(board.points_board, axis=0)[:2]
        size_m = np.array([across, down, min(across, down) / 2])
    else:
        size_m = np.array(volume_mm) / 1e3
    half = size_m / 2
    return Volume(np.array([-half[0], -half[1], 0.0]), np.array([half[0], half[1], size_m[2]]))


def part_map(calibrated: Calibrated, request: CertificateRequest) -> UncertaintyMap:
    """Uncertainty over the work volume."""
    volume = work_volume(calibrated.observation.boards[0], request.volume_mm)
    return uncertainty_map(calibrated.cell, volume, settings=MapSettings(request.frames))


def certificate_of(plan: CalibrationPlan, calibrated: Calibrated, request: CertificateRequest) -> CertificateContent:
    """The whole content; reads the recordings once more for their digests."""
    cell, rig, observation = calibrated.cell, calibrated.rig, calibrated.observation
    found = part_map(calibrated, request)
    moment = datetime.fromisoformat(cell.calibrated_at)
    until = (moment + timedelta(days=request.valid_days)).isoformat(timespec="seconds").replace("+00:00", "Z")
    devices, recordings = observation.devices, (*observation.recordings, *calibrated.noise_recordings)
    return CertificateContent(
        cell_name=cell.name,
        cell_sha256=cell.sha256,
        calibrated_at=cell.calibrated_at,
        issued_at=cell.calibrated_at,
        valid_until=until,
        issuer=request.issuer,
        cameras=tuple(
            certified_camera(camera, devices[serial].firmware or None, devices[serial].temperatures_c)
            for serial, camera in cell.cameras.items()
        ),
        boards=tuple(_board(number, plan, rig, request) for number in range(len(plan.boards))),
        views=len(rig.problem.views),
        instants=len({view.place for view in rig.problem.views}),
        conditions=_conditions(plan, calibrated),
        method=_method(plan, rig),
        results=results_of(cell),
        models=_models(rig),
        validation=_validation(rig),
        halves=_halves(rig),
        coverage=_coverage(rig),
        outliers=_outliers(rig),
        part=part_uncertainties(cell, found),
        part_frames=request.frames,
        pictures=pictures_of(rig.problem, rig.bundle, found, difference_maps(rig.problem, rig.validation.halves)),
        statements=_statements(calibrated),
        software=tuple((name, importlib.metadata.version(name)) for name in ("depthcell", *PACKAGES)),
        inputs=tuple((_shown(path, plan.source), sha256_of_file(path)) for path in recordings),
    )


def _board(number: int, plan: CalibrationPlan, rig: RigSolution, request: CertificateRequest) -> ReferenceBoard:
    board = plan.boards[number]
    warp_m = rig.bundle.warp_m.get(number)
    return ReferenceBoard(
        spec=board.spec,
        pitch_mm=1e3 * board.pitch_m,
        pitch_u_mm=1e3 * board.pitch_m * plan.pitch_u,
        certificate=request.board_certificate,
        warp_mm=None if warp_m is None else 1e3 * float(np.abs(warp_m).sum()),
    )


def _conditions(plan: CalibrationPlan, calibrated: Calibrated) -> tuple[tuple[str, str], ...]:
    observation, rig = calibrated.observation, calibrated.rig
    places = {view.place for view in rig.problem.views}
    depths_m = [
        rig.bundle.T_cell_stream[v.stream].inverse() @ rig.bundle.T_cell_board[v.place] for v in rig.problem.views
    ]
    distances_m = [float(np.linalg.norm(T.translation_m)) for T in depths_m]
    return (
        ("Recordings", ", ".join(_shown(path, plan.source) for path in observation.recordings)),
        ("Places of the board", f"{len(places)} adjusted, {len(rig.validation.instants)} held out"),
        ("Distance of the boards from the cameras", f"{min(distances_m):.2f} to {max(distances_m):.2f} m"),
        ("Images left out", _left_out(observation)),
        ("Noise of depth", calibrated.noise_from),
        ("Frame of the cell", f"board {plan.boards[rig.problem.origin[0]].spec} at instant {rig.problem.origin[1]}: "
         "its middle is the origin, x along its rows, z out of its face"),
    )  # fmt: skip


def _left_out(observation: Observation) -> str:
    counts: dict[str, int] = {}
    for refused in observation.seen.refused:
        name = refused.issue.kind.value.replace("_", " ")
        counts[name] = counts.get(name, 0) + 1
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "none"


def _method(plan: CalibrationPlan, rig: RigSolution) -> tuple[str, ...]:
    kinds = sorted({board.kind.value for board in plan.boards})
    depth = (
        "Depth on the faces of the boards takes part in the same adjustment: scale, offset, curvature and a wave over "
        "the image, in the disparity domain."
        if rig.problem.depth
        else "No depth was recorded on the boards; depth is as the device gives it, and its uncertainty is not stated."
    )
    return (
        f"Features of {', '.join(kinds)} boards were located by fitting the grey values around each of them. All "
        "lenses, camera poses, board poses, the boards' bend and scale were adjusted at once by least squares (bundle "
        "adjustment); features further off than 4.5 standard deviations were left out and are counted below.",
        depth,
        "Of the lens models that the views determine, the one was taken that predicts best those views that it was not "
        "fitted to.",
        "Standard uncertainties are those of the adjustment, with the noise estimated from its residuals, propagated "
        "according to JCGM 100 (GUM), 5.2; the covariance of all parameters is in the cell file.",
    )


def _models(rig: RigSolution) -> tuple[ModelChoice, ...]:
    rows = []
    for stream, choice in sorted(rig.choices.items()):
        chosen = "factory" if choice.is_factory else choice.intrinsics.distortion.value
        rows += [
            ModelChoice(stream, MODEL_WORDS.get(s.name, s.name), s.held_out_rms_px, s.fit_rms_px, s.name == chosen)
            for s in choice.table
            if np.isfinite([s.held_out_rms_px, s.fit_rms_px]).all()
        ]
    return tuple(rows)


def _validation(rig: RigSolution) -> tuple[Check, ...]:
    checks = []
    for one in rig.validation.streams:
        how = f"held-out boards, only their poses refitted; {1e3 * one.rms_mm:.1f} um at the board"
        checks.append(Check(f"{one.stream}: reprojection, RMS", one.rms_px, "px", None, one.corners, how))
    for depth in rig.validation.depth:
        read = f"as read: bias {depth.bias_before_mm:.3f}, RMS {depth.rms_before_mm:.3f} mm"
        name = f"depth of {depth.serial} on held-out boards"
        bias = abs(depth.bias_after_mm)
        checks.append(Check(f"{name}: size of the median error", bias, "mm", None, depth.tiles, f"corrected; {read}"))
        checks.append(Check(f"{name}: RMS", depth.rms_after_mm, "mm", None, depth.tiles, f"corrected; {read}"))
    lengths = rig.validation.lengths
    if lengths is not None:
        how = f"corners {lengths.mean_length_mm:.0f} mm apart, by two cameras or more; stated u {lengths.u_mm:.4f} mm"
        checks.append(Check("length on held-out boards: RMS error", lengths.rms_mm, "mm", None, lengths.lengths, how))
        how = "corners measured by two cameras or more, from the board's face"
        checks.append(Check("plane of held-out boards: RMS", lengths.plane_rms_mm, "mm", None, lengths.lengths, how))
    return tuple(check for check in checks if np.isfinite(check.value))


def _halves(rig: RigSolution) -> tuple[Check, ...]:
    halves = rig.validation.halves
    if not halves.streams:
        return ()
    count = len(rig.problem.views)
    checks = [
        Check(
            f"{one.stream}: difference of two halves, RMS",
            one.seen_rms_mm,
            "mm",
            None,
            count,
            f"at {one.distance_m:.2f} m where corners were seen; {one.seen_rms_px:.3f} px, predicted "
            f"{one.seen_predicted_px:.3f} px",
        )
        for one in halves.streams
    ]
    how = "RMS difference over the RMS that the two halves' covariances predict"
    checks.append(Check("consistency of two halves", halves.consistency, "1", CONSISTENCY_LIMIT, count, how))
    return tuple(check for check in checks if np.isfinite(check.value))


def _coverage(rig: RigSolution) -> tuple[Coverage, ...]:
    def row(one: StreamCheck) -> Coverage:
        count = 2 * one.corners
        return Coverage(f"{one.stream}: coordinates of held-out corners", round(one.within_95 * count), count)

    rows = [row(one) for one in rig.validation.streams if one.corners]
    lengths = rig.validation.lengths
    if lengths is not None:
        inside = round(lengths.within_95 * lengths.lengths)
        rows.append(Coverage("lengths on held-out boards", inside, lengths.lengths))
    return tuple(rows)


def _outliers(rig: RigSolution) -> tuple[OutlierCount, ...]:
    rows = []
    for stream in rig.problem.streams:
        views = [view for view in rig.problem.views if view.stream == stream]
        features = sum(len(view.ids) for view in views)
        rows.append(OutlierCount(stream, len(views), features, rig.bundle.outliers[stream]))
    for serial in dict.fromkeys(tiles.serial for tiles in rig.problem.depth):
        own = [tiles for tiles in rig.problem.depth if tiles.serial == serial]
        name = f"depth of {serial}"
        rows.append(OutlierCount(name, len(own), sum(len(t.sigma_px) for t in own), rig.bundle.outliers[name]))
    return tuple(rows)


def _statements(calibrated: Calibrated) -> tuple[str, ...]:
    rig, observation = calibrated.rig, calibrated.observation
    statements = [suspected.sentence for suspected in rig.suspected]
    if rig.kept_factory:
        names = ", ".join(sorted(rig.kept_factory))
        statements.append(f"The device's own lens was kept, because no other predicts better: {names}.")
    if rig.factory_tied:
        names = ", ".join(sorted(rig.factory_tied))
        statements.append(f"No view ties {names} to the others; where it stands is the factory's statement.")
    if observation.unusable_depth:
        count = len(observation.unusable_depth)
        statements.append(f"Depth of {count} views was left out, the first because: {observation.unusable_depth[0]}.")
    if not rig.validation.halves.streams:
        statements.append(f"Two halves were not compared: {rig.validation.halves.reason}.")
    return tuple(statements)


def _shown(path: Path, source: Path) -> str:
    try:
        return str(path.resolve().relative_to(source.resolve()))
    except ValueError:
        return path.name
