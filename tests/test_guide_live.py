"""Guidance while recording, before software cameras: what is said, what counts, and what lies on disk afterwards."""

import itertools
import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from boardstage import BOARD, LENS, SIZE, T_A_CAMERA, Stage, place
from PIL import Image

from depthcell.acquisition import devicesource
from depthcell.acquisition.camerasettings import CameraSettings, StreamSettings
from depthcell.acquisition.frameset import CameraFrame, DepthImage, FrameSet
from depthcell.acquisition.recordedframe import StreamKind
from depthcell.acquisition.recording import open_recording
from depthcell.acquisition.simulator.softwarecamera import SoftwareBus, SoftwareCamera
from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.board_recordings import board_recordings
from depthcell.calib.calibrate_run import CalibrationPlan, calibrate, centred_on
from depthcell.calib.factory import NOISE
from depthcell.calib.guiding import guide_live
from depthcell.calib.guiding.board_watch import SAMPLE, SAMPLE_APART_NS, BoardWatch, sample_of
from depthcell.calib.guiding.guidance import GuidanceSettings
from depthcell.calib.guiding.guidance_information import Advice
from depthcell.calib.guiding.guide_live import LiveGuide, Person, board_cameras, on_terminal
from depthcell.calib.guiding.guide_run import advise_on
from depthcell.calib.observation import observe
from depthcell.calib.target.board_views import views_of
from depthcell.cli import main
from depthcell.errors import DepthcellError, Reason

QUICK = GuidanceSettings(distances=1, worth=0.7)
"""A pose is worth asking for only if it takes 70 % off: so that a test ends soon."""


@dataclass
class Script:
    """Someone who does one thing in each countdown, and what they are told."""

    acts: list[Callable[[], None]]
    said: list[str] = field(default_factory=list)
    counted: list[str] = field(default_factory=list)
    has_enough: Callable[["Script"], bool] = lambda script: not script.acts

    def person(self) -> Person:
        return Person(self.said.append, self.counted.append, self._wait, lambda: self.has_enough(self))

    def _wait(self, _: float) -> None:
        self.acts.pop(0)()


@dataclass(frozen=True)
class Session:
    """What was played, and what came of it."""

    source: Path
    advice: Advice | None
    said: list[str]
    counted: list[str]


def asked(source: Path) -> LiveGuide:
    picture = source / "guide.png"
    return LiveGuide(source, (BOARD,), picture, every_s=1.0, seconds=0.2, reserve_bytes=1_000_000, guidance=QUICK)


def played(stage: Stage, guide: LiveGuide, script: Script) -> Session:
    cameras = board_cameras(stage.bus, None, SIZE, SIZE)
    with stage.running():
        advice = guide_live.guide_live(guide, cameras, stage.bus, script.person())
    return Session(guide.source, advice, script.said, script.counted)


def plug_in_again(stage: Stage, camera: SoftwareCamera) -> None:
    stage.bus.plug(camera)
    stage.hold(place(3))


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    stage = Stage()
    unplugged = stage.bus.cameras["B"]
    acts: list[Callable[[], None]] = [
        lambda: stage.hold(place(0)),
        lambda: stage.hold(place(1), shift_px=2),
        lambda: stage.hold(place(2), blur_px=4.0),
        lambda: stage.bus.unplug("B"),
        lambda: plug_in_again(stage, unplugged),
        lambda: stage.hold(place(4)),
        lambda: stage.hold(place(5)),
    ]
    source = tmp_path_factory.mktemp("live") / "cal"
    return played(stage, asked(source), Script([*acts, lambda: None]))  # one act more than it should take


def files_in(source: Path) -> list[str]:
    return sorted(str(path.relative_to(source / "board")) for path in (source / "board").rglob("*") if path.is_file())


# --- a whole session ------------------------------------------------------------------------------------------------


def test_it_says_what_is_missing_until_there_is_enough_for_an_advice(session: Session) -> None:
    said = session.said
    assert said[0].startswith("Nothing is recorded yet: hold the board still")
    missing = [line for line in said if line.startswith("Too little data to advise on yet: ")]
    assert [f"depth:A has {count} views of the board, 4 are needed" in missing[count - 1] for count in (1, 2, 3)] == [
        True,
        True,
        True,
    ]
    assert len(missing) == 3
    assert said[-2].startswith("Enough: the uncertainty at the part by the calibration alone is 0.")
    assert said[-1] == f"now run: depthcell calibrate {session.source} --board {BOARD.spec}"
    assert all("\n" not in line for line in said)


def test_it_ends_by_itself_and_draws_what_it_advises(session: Session) -> None:
    assert session.advice is not None
    assert session.advice.enough
    assert 0 < session.advice.now_mm < 3
    assert np.asarray(Image.open(session.source / "guide.png")).std() > 5


def test_a_board_that_moves_or_is_blurred_does_not_count_and_that_is_said(session: Session) -> None:
    refused = [line for line in session.said if line.startswith("Not counted: ")]
    assert len(refused) == 2
    assert "the board moves by" in refused[0]
    assert "focus, and shorten the exposure" in refused[1]


def test_a_camera_that_is_away_is_said_and_waited_for(session: Session) -> None:
    away = "Not recorded: camera B: not connected (there are: A); check its cable and run: depthcell devices."
    assert session.said.count(away) == 1
    assert session.said.index(away) < session.said.index("Place 2: seen by color:A, color:B, depth:A, depth:B.")


def test_only_places_that_count_are_on_disk_and_nothing_half_written(session: Session) -> None:
    assert [line for line in session.said if line.startswith("Place ")] == [
        f"Place {number}: seen by color:A, color:B, depth:A, depth:B." for number in (1, 2, 3, 4)
    ]
    expected = [f"place_{number:03d}/{serial}.db3" for number in (1, 2, 3, 4) for serial in "AB"]
    assert files_in(session.source) == expected
    assert {path.name for path in session.source.iterdir()} == {"board", "guide.png"}


def test_every_place_is_a_genuine_recording_without_projector(session: Session) -> None:
    for path in board_recordings(session.source).paths:
        recording = open_recording(path)
        frames = list(recording.camera_frames())
        whole = [f for f in frames if f.depth is not None and f.infrared is not None and f.color is not None]
        assert len(whole) >= 5
        stereo = next(stream.sensor for stream in recording.streams if stream.kind is StreamKind.INFRARED)
        assert recording.options[stereo]["Emitter Enabled"] == 0
        assert whole[0].depth is not None
        assert whole[0].depth.intrinsics.fx_px == pytest.approx(LENS.fx_px)


def test_the_countdown_tells_when_to_hold_still(session: Session) -> None:
    assert session.counted.count("recording in 1 s: move the board, then hold it still (Ctrl-C ends)") == 7
    assert session.counted.count("hold still") == 7


# --- what was recorded is read as one -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_places(session: Session, tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("two")
    for name in ("place_001", "place_002"):
        shutil.copytree(session.source / "board" / name, source / "board" / name)
    return source


@pytest.fixture(scope="module")
def watch(two_places: Path) -> BoardWatch:
    watch = BoardWatch((BOARD,))
    for segment in board_recordings(two_places).segments:
        watch.kept.append(watch.look_at(segment, sampled=True))
    return watch


def test_calibration_sees_in_the_whole_what_guidance_saw_place_by_place(two_places: Path, watch: BoardWatch) -> None:
    """Guidance looked at three images of each place and stream, calibration at all."""
    whole, some = observe(two_places, (BOARD,), dict.fromkeys("AB", NOISE)), watch.observation()
    assert len(whole.recordings) == 4
    assert whole.recordings == some.recordings
    assert max(len(each.instants) for each in some.seen.places) == SAMPLE
    assert min(len(each.instants) for each in whole.seen.places) > SAMPLE
    assert len(whole.seen.places) == len(some.seen.places) == 2
    assert len(whole.seen.views) == len(some.seen.views) == 8
    for one, other in zip(some.seen.views, whole.seen.views, strict=True):
        assert one.stream == other.stream
        _, here, there = np.intersect1d(one.ids, other.ids, return_indices=True)
        assert len(here) > 15
        assert np.abs(one.pixels[here] - other.pixels[there]).max() < 0.02
    assert len(some.depth) == len(whole.depth) == 4
    for tiles, others in zip(some.depth, whole.depth, strict=True):
        assert tiles.serial == others.serial
        assert np.median(tiles.disparity_px) == pytest.approx(np.median(others.disparity_px), abs=0.05)


def test_depth_lies_where_the_board_was_held(watch: BoardWatch) -> None:
    first = next(tiles for tiles in watch.observation().depth if tiles.serial == "A")
    held = place(0)
    normal = held.rotation[:, 2]
    rays = np.concatenate((LENS.normalized(first.pixels), np.ones((len(first.pixels), 1))), axis=1)
    truth_m = normal @ held.translation_m / (rays @ normal)
    read_m = LENS.fx_px * 0.05 / first.disparity_px
    assert np.median(np.abs(read_m - truth_m)) < 5e-4


def test_a_clock_that_began_anew_between_places_changes_nothing(watch: BoardWatch) -> None:
    """Against numbering by time, under which the images of both places would mix."""
    looks = [each for segment in watch.kept for each in segment.looks]
    earliest_ns = [min(each.timestamp_ns for each in segment.looks) for segment in watch.kept]
    fallen = [
        replace(each, timestamp_ns=each.timestamp_ns - began_ns + 7_000_000 * number)
        for number, (segment, began_ns) in enumerate(zip(watch.kept, earliest_ns, strict=True))
        for each in segment.looks
    ]
    plain, restarted = views_of((BOARD,), looks), views_of((BOARD,), fallen)
    assert restarted.places == plain.places
    assert restarted.refused == plain.refused
    by_time = [replace(each, instant=each.timestamp_ns // 1_000_000) for each in fallen]
    assert {len(each.instants) for each in views_of((BOARD,), by_time).places} != {SAMPLE}


def test_it_goes_on_where_it_was_left_and_drops_what_is_cut_short(two_places: Path, tmp_path: Path) -> None:
    """Ctrl-C while the third place is recorded."""
    source, stage = tmp_path / "cal", Stage()
    shutil.copytree(two_places, source)
    (source / "board" / ".place_003.partial").mkdir()
    (source / "board" / ".place_003.partial" / "A.db3").write_bytes(b"left by a kill")
    before = files_in(two_places)
    script = Script([lambda: stage.hold(place(3))], has_enough=lambda script: "hold still" in script.counted)
    again = played(stage, asked(source), script)
    assert again.said[0] == "2 places were recorded before"
    assert "depth:A has 2 views of the board, 4 are needed" in again.said[1]
    assert again.said[2:] == [
        "Not counted: it was cut short.",
        f"now run: depthcell calibrate {source} --board {BOARD.spec}",
    ]
    assert again.advice is None
    assert files_in(source) == before
    assert not (source / "board" / ".place_003.partial").exists()


def test_a_camera_that_gives_no_image_is_named_and_the_others_count(tmp_path: Path) -> None:
    stage = Stage()

    def hold_before_one() -> None:
        stage.hold(place(0))
        stage.blind = frozenset("B")

    guide = replace(asked(tmp_path), patience_s=0.6)
    script = Script([hold_before_one, lambda: None], has_enough=lambda script: len(script.acts) == 0)
    said = played(stage, guide, script).said
    assert "Place 1: seen by color:A, depth:A; camera B gave no image, check its cable." in said
    assert files_in(tmp_path) == ["place_001/A.db3"]


def test_nothing_is_left_where_nothing_came(tmp_path: Path) -> None:
    stage = Stage()
    guide = replace(asked(tmp_path), patience_s=0.3)
    script = Script([lambda: None, lambda: None], has_enough=lambda script: len(script.acts) == 0)
    said = played(stage, guide, script).said
    assert said[1].startswith("Not counted: nothing came; camera A gave no image, check its cable; camera B gave")
    assert len(said) == 2  # nothing to calibrate from, so no call to do so
    assert files_in(tmp_path) == []


def test_a_full_disk_ends_it_and_leaves_nothing(tmp_path: Path) -> None:
    stage = Stage()
    guide = replace(asked(tmp_path), reserve_bytes=10**18)
    with pytest.raises(DepthcellError, match="in reserve, but") as refused:
        played(stage, guide, Script([lambda: stage.hold(place(0)), lambda: None]))
    assert refused.value.reason is Reason.DISK_FULL
    assert not list(tmp_path.glob("board/*"))


# --- which images are looked at -------------------------------------------------------------------------------------


def frameset(serials: str, time_ms: int) -> FrameSet:
    image = DepthImage(np.ones((240, 424), np.float32), LENS, 0.001, None, time_ms * 1_000_000, time_ms)
    return FrameSet({s: CameraFrame(s, "D435", image, None) for s in serials}, ("A", "B"), time_ms * 1_000_000)


@pytest.mark.parametrize("fps", [6, 15, 30, 90])
def test_the_last_whole_frame_sets_are_looked_at(fps: int) -> None:
    times_ms = [round(1000 * n / fps) for n in range(90)]
    shown = [frameset("A" if n < 10 or n == 88 else "AB", t) for n, t in enumerate(times_ms)]
    chosen = sample_of(shown)
    assert len(chosen) == SAMPLE
    assert all(len(each.frames) == 2 for each in chosen)
    gaps_ns = np.diff([each.timestamp_ns for each in chosen])
    assert gaps_ns.min() >= SAMPLE_APART_NS
    assert gaps_ns.max() < 400e6
    assert chosen[-1] is shown[-1]
    assert sample_of(()) == ()


# --- cameras and terminal -------------------------------------------------------------------------------------------


def test_boards_are_recorded_with_infrared_and_without_projector() -> None:
    bus = SoftwareBus.of(SoftwareCamera("A", SIZE), SoftwareCamera("C", SIZE, "D405"))
    other = StreamSettings(640, 480, 15)
    plain, left = board_cameras(bus, None, SIZE, other)
    assert (plain.serial, plain.depth, plain.infrared, plain.color, plain.emitter) == ("A", SIZE, SIZE, other, False)
    assert (left.serial, left.depth, left.infrared, left.color, left.emitter) == ("C", SIZE, None, other, None)
    assert [each.serial for each in board_cameras(bus, ["A"], SIZE, None)] == ["A"]


@pytest.mark.parametrize(
    ("serials", "named", "color", "message"),
    [
        ("", None, SIZE, "no camera is connected; run: depthcell devices"),
        ("A", ["B"], SIZE, r"camera B: not connected \(there are: A\); check its cable"),
        ("A", ["A", "A"], SIZE, "a serial number is named twice"),
        ("C", None, None, "camera C: the left imager of a D405 gives its colour; leave out --color none"),
    ],
)
def test_cameras_that_cannot_be_had_are_refused(
    serials: str, named: list[str] | None, color: StreamSettings | None, message: str
) -> None:
    bus = SoftwareBus.of(*(SoftwareCamera(serial, SIZE, "D405" if serial == "C" else "D435") for serial in serials))
    with pytest.raises(DepthcellError, match=message):
        board_cameras(bus, named, SIZE, color)


@pytest.mark.parametrize("wrong", [{"every_s": 0.0}, {"seconds": -1.0}, {"patience_s": float("nan")}, {"boards": ()}])
def test_impossible_wishes_are_refused_by_name(wrong: dict[str, object], tmp_path: Path) -> None:
    name = "--board" if "boards" in wrong else f"guide.{next(iter(wrong))}"
    with pytest.raises(DepthcellError, match=name):
        replace(asked(tmp_path), **wrong)  # type: ignore[arg-type]


def test_ctrl_c_is_a_wish_to_stop(capsys: pytest.CaptureFixture[str]) -> None:
    for quiet in (False, True):
        with on_terminal(quiet=quiet) as person:
            assert not person.should_stop()
            person.say("Tilt the board.")
            os.kill(os.getpid(), signal.SIGINT)
            assert person.should_stop()
        out, err = capsys.readouterr()
        assert ("Tilt the board.\n" in out) is not quiet
        assert ("Tilt the board." in err) is quiet


def test_the_verb_refuses_without_a_camera(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devicesource, "ConnectedDevices", SoftwareBus)
    with pytest.raises(SystemExit) as left:
        main(["calibrate", "guide", str(tmp_path / "cal"), "--board", BOARD.spec, "--live"])
    assert left.value.code == 2
    assert capsys.readouterr().err == "depthcell: no camera is connected; run: depthcell devices\n"
    assert not (tmp_path / "cal").exists()


def test_the_verb_hands_over_what_was_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = SoftwareBus.of(SoftwareCamera("A", SIZE), SoftwareCamera("B", SIZE))
    called: list[tuple[LiveGuide, list[CameraSettings], SoftwareBus]] = []

    def guided(guide: LiveGuide, cameras: list[CameraSettings], devices: SoftwareBus, person: Person) -> Advice:
        called.append((guide, cameras, devices))
        person.say("Enough.")
        pose = RigidTransform("cell", "board", np.eye(3), np.zeros(3))
        return Advice("Enough.", "depth:A", pose, ("depth:A",), 0.2, 0.19, True, 3)

    monkeypatch.setattr(devicesource, "ConnectedDevices", lambda: bus)
    monkeypatch.setattr(guide_live, "guide_live", guided)
    words = ["--live", "--every", "7", "--camera", "B", "--depth", "640x480@15", "--color", "none", "--json"]
    with pytest.raises(SystemExit) as left:
        main(["calibrate", "guide", str(tmp_path), "--board", BOARD.spec, *words])
    assert left.value.code == 0
    ((guide, cameras, devices),) = called
    assert (guide.source, guide.boards, guide.every_s, devices) == (tmp_path, (BOARD,), 7.0, bus)
    (camera,) = cameras
    assert (camera.serial, str(camera.infrared), camera.color) == ("B", "640x480@15", None)
    out, err = capsys.readouterr()
    assert json.loads(out)["enough"] is True
    assert "Enough." in err


# --- someone who does as they are told ------------------------------------------------------------------------------


@pytest.mark.slow
def test_following_the_advice_ends_by_itself_with_a_cell_that_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the fifth place on the board is held where the sentence says; then the recordings are calibrated from."""
    stage, advised, held = Stage(), list[Advice](), list[RigidTransform]()
    T_A_cell = place(0) @ centred_on(BOARD).inverse()

    def remembered(*asked_for: Any) -> Advice:
        advised.append(advise_on(*asked_for))
        return advised[-1]

    def hold() -> None:
        held.append(place(len(held)))
        if advised:
            pose = advised[-1].T_cell_board
            held[-1] = T_A_cell @ replace(pose, source="board")
        stage.hold(held[-1])

    monkeypatch.setattr(guide_live, "advise_on", remembered)
    last = played(stage, replace(asked(tmp_path), guidance=None), Script([hold] * 25))
    assert last.advice is not None
    assert last.advice.enough
    assert len(held) < 20
    for before, after in itertools.pairwise(advised):
        assert after.now_mm < 1.02 * before.now_mm
    assert advised[-1].now_mm < 0.4 * advised[0].now_mm
    found = calibrate(CalibrationPlan(tmp_path, (BOARD,), "live"))
    for serial, camera in found.cell.cameras.items():
        u_px = np.sqrt(camera.covariance[6, 6])
        assert abs(camera.depth.fx_px - LENS.fx_px) < 4 * u_px < 1.0, serial
    T_A_B = found.cell.cameras["A"].T_cell_depth.inverse() @ found.cell.cameras["B"].T_cell_depth
    assert np.linalg.norm(T_A_B.translation_m - T_A_CAMERA["B"].translation_m) < 3e-4
