"""Timing of ourselves beside a peer in one run, printed as a table and written as data that says where it comes from.

A benchmark measures each side with `measure`, hands both timings to `Report.add`, and ends with `Report.write`.
Run one as `.venv/bin/python benchmarks/NAME.py`; the data lands in `benchmarks/results/NAME.json`, losses included.
"""

import json
import math
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from depthcell.files import write_text

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
VERSIONED = (
    "depthcell",
    "numpy",
    "scipy",
    "opencv-python-headless",
    "open3d",
    "pyrealsense2",
    "rosbags",
    "torch",
    "torch-geometric",
)


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of `n` repetitions of one thing: median, and the 10th and 90th percentile as its spread."""

    median_s: float
    p10_s: float
    p90_s: float
    n: int


@dataclass(frozen=True, slots=True)
class Peer:
    """Whom we measure ourselves against, doing the same work in the same run."""

    name: str
    timing: Timing


@dataclass(frozen=True, slots=True)
class Goal:
    """What was aimed at: to be `ratio` times as fast as the peer, or within `seconds`, or both; or anything else.

    Attributes:
        words: of another goal than time.
        reached: whether that one was.
    """

    ratio: float | None = None
    seconds: float | None = None
    words: str = ""
    reached: bool = True

    def is_met(self, us: Timing, ratio: float | None) -> bool:
        """Whether our median and the ratio reach everything that was aimed at."""
        fast_enough = self.ratio is None or (ratio is not None and ratio >= self.ratio)
        return self.reached and fast_enough and (self.seconds is None or us.median_s <= self.seconds)

    def __str__(self) -> str:
        ratio = "" if self.ratio is None else f"{self.ratio:g} times the peer"
        seconds = "" if self.seconds is None else f"within {self.seconds * 1e3:g} ms"
        return ", ".join(part for part in (ratio, seconds, self.words) if part)


@dataclass(frozen=True, slots=True)
class Row:
    """One claim: our timing, the peer's, and how much faster we are.

    Attributes:
        what: what was done, in words, with its size.
        us: our timing.
        peer: the peer and its timing; None where the goal is an absolute time.
        ratio: peer's median over ours; above 1 we are faster. None without a peer.
        goal: what was aimed at.
        met: whether it was reached in this run.
        notes: counts and figures that belong to the claim, such as how many frames each side returned.
    """

    what: str
    us: Timing
    peer: Peer | None
    ratio: float | None
    goal: Goal
    met: bool
    notes: dict[str, object] = field(default_factory=dict)


def measure(run: Callable[[], object], repetitions: int = 7, warm_ups: int = 1) -> Timing:
    """Wall-clock seconds of `run()`, after `warm_ups` runs that are not counted."""
    for _ in range(warm_ups):
        run()
    seconds = []
    for _ in range(repetitions):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return timing_of(seconds)


def timing_of(seconds: list[float]) -> Timing:
    """The `Timing` of seconds measured elsewhere, such as in another process."""
    if len(seconds) == 1:
        return Timing(seconds[0], seconds[0], seconds[0], 1)
    deciles = statistics.quantiles(seconds, n=10, method="inclusive")
    return Timing(statistics.median(seconds), deciles[0], deciles[-1], len(seconds))


def wilson(hits: float, count: float) -> tuple[float, float]:
    """95 % interval of a share, Wilson (1927); `count` may be an effective one."""
    z, share = 1.959964, hits / count
    middle, half = share + z**2 / (2 * count), z * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return (middle - half) / (1 + z**2 / count), (middle + half) / (1 + z**2 / count)


class Report:
    """The rows of one benchmark, with commit, machine and versions."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.rows: list[Row] = []

    def add(self, what: str, us: Timing, goal: Goal, peer: Peer | None = None, **notes: object) -> Row:
        """Add and print one claim; `notes` are counts and figures that belong to it."""
        ratio = None if peer is None else peer.timing.median_s / us.median_s
        row = Row(what, us, peer, ratio, goal, goal.is_met(us, ratio), dict(notes))
        self.rows.append(row)
        print(_line(row), flush=True)
        return row

    def write(self) -> Path:
        """Write `benchmarks/results/<name>.json` and return its path."""
        content = {
            "benchmark": self.name,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": _commit(),
            "machine": _machine(),
            "versions": {name: _version(name) for name in VERSIONED},
            "rows": [asdict(row) for row in self.rows],
        }
        path = RESULTS / f"{self.name}.json"
        write_text(path, json.dumps(content, indent=2) + "\n")
        print(f"written: {path.relative_to(ROOT)}")
        return path


def _line(row: Row) -> str:
    text = f"{row.what}\n  us    {_milliseconds(row.us)}"
    if row.peer is not None:
        text += f"\n  peer  {_milliseconds(row.peer.timing)}   {row.peer.name}\n  ratio {row.ratio:.2f}"
    for name, value in row.notes.items():
        text += f"\n  {name}: {value}"
    return text + (f"\n  goal  {row.goal}: {'met' if row.met else 'NOT met'}" if str(row.goal) else "")


def _milliseconds(timing: Timing) -> str:
    low, high = timing.p10_s * 1e3, timing.p90_s * 1e3
    return f"{timing.median_s * 1e3:10.2f} ms  (p10 {low:.2f}, p90 {high:.2f}, n {timing.n})"


def _commit() -> str:
    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _machine() -> dict[str, object]:
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "python": platform.python_version(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
