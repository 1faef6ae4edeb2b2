"""The network's time: a view, a part of three views, a batch; beside PatchCore and EfficientAD-S of anomalib's design.

Inputs have the shape of real ones (three views of 256 x 256, 4096 points on a lumpy ball, each seen by the cameras that
face it) and random values; weights are random: time depends on neither. Every side gets its images in memory.

- A view, fast path: image in NumPy to anomaly logits per pixel. Goal 10 ms on two cores.
- A part: three views and its points in NumPy, laid together into a batch, through the whole network to logits of
  pixels, points and part. Goal 60 ms. Not in it: acquisition, fusion, canonical views, what is made of the logits. The
  peers see the three colour images.
- The whole of what a trained model does with a part: the network, the memory of good parts, joint score, familiarity.
- Memory: what a process that holds a whole model, or a peer, and judges ten parts or images takes at its peak.

With `--device cuda` the same on a GPU, per part (p50, p99) and in batches, with the distance to the roofline of the
card as its maker states it, which is to be given; written to models_speed_cuda.json beside a profile.
"""

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import depthcell  # noqa: F401 - before PyTorch, see there

# isort: split
import anomaly_peers
import numpy as np
import torch
from harness import RESULTS, Goal, Peer, Report, Timing, measure, timing_of
from network_cost import Card, cost_of, profile_of
from scipy.spatial import KDTree

from depthcell.files import write_text
from depthcell.models.artifact import ModelIdentity
from depthcell.models.decision.calibration import Calibration
from depthcell.models.decision.outofdistribution import Familiarity
from depthcell.models.goodonly.goodmodel import GoodModel
from depthcell.models.network.batch import PartBatch, collate
from depthcell.models.network.network import PartNetwork, Reading
from depthcell.models.network.partinput import CHANNELS, NEIGHBOURS, POINT_FEATURES, PartInput
from depthcell.models.network.runtime import ReadyNetwork, prepare
from depthcell.models.trained import Rule, TrainedModel, Unit

VIEWS, SIDE_PX, POINTS, GOOD_PARTS = 3, 256, 4096, 12
BATCHES = (1, 8, 32, 128)
GOAL_VIEW, GOAL_PART, GOAL_GPU = Goal(seconds=0.010), Goal(seconds=0.060), Goal(seconds=0.005)
GOAL_MEMORY_MB = 1000


def shaped_part(seed: int) -> PartInput:
    """A lumpy ball of 100 mm under three cameras along the axes."""
    rng = np.random.default_rng(seed)
    normals = rng.normal(size=(POINTS, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    points = 0.05 * normals * (1 + 0.1 * np.sin(5 * normals[:, :1]))
    features = rng.random((POINTS, len(POINT_FEATURES)))
    pixel = np.full((POINTS, VIEWS), -1, np.int32)
    for view in range(VIEWS):
        others = [axis for axis in range(3) if axis != view]
        cell = ((normals[:, others] * 0.44 + 0.5) * SIDE_PX).astype(np.int32)
        pixel[:, view] = np.where(normals[:, view] > 0, cell[:, 0] * SIDE_PX + cell[:, 1], -1)
    row, column = np.indices((SIDE_PX, SIDE_PX)) - (SIDE_PX - 1) / 2
    images = rng.random((VIEWS, len(CHANNELS), SIDE_PX, SIDE_PX)) * (np.hypot(row, column) < 0.45 * SIDE_PX)
    images[:, -2:] = images[:, -2:] > 0
    return PartInput(
        part_id=f"ball-{seed}",
        serials=("a", "b", "c"),
        images=images.astype(np.float32),
        points_part=points.astype(np.float32),
        features=features.astype(np.float32),
        neighbours=np.asarray(KDTree(points).query(points, NEIGHBOURS + 1)[1], np.int32)[:, 1:],
        pixel=pixel,
    )


def trained_shape(seed: int = 0) -> PartNetwork:
    """The network at its default size."""
    torch.manual_seed(seed)
    return PartNetwork().eval()


def whole_model() -> TrainedModel:
    """Network and good parts as training joins them; what the thresholds are changes no time."""
    parts = [shaped_part(seed) for seed in range(GOOD_PARTS)]
    identity = ModelIdentity(
        views_sha256="0" * 64, recipe_name="ball", cell_name="three axes", serials=parts[0].serials
    )
    unit = Unit(0.0, 1.0)
    rule = Rule(unit, unit, 0.5, 1.0, Calibration(1.0, 0.0), 1.0)
    return TrainedModel(identity, trained_shape(), GoodModel.fit(parts), Familiarity.learn(parts), rule)


# --- two cores -------------------------------------------------------------------------------------------------------


def add_cpu(report: Report) -> None:
    """A view and a part, each beside the peers, then what the parts of the decision take."""
    network, part = trained_shape(), shaped_part(0)
    ready, first = prepare(network), torch.zeros(1, dtype=torch.long)

    def view() -> object:
        return ready.view_anomaly(torch.from_numpy(part.images[:1]), first)

    us_view, us_part = measure(view, 31, 5), measure(lambda: ready.judge([part]), 31, 5)
    for name in anomaly_peers.PEERS:
        one, three = peer_timings(name, part)
        report.add("one view of 256 x 256 on two cores, fast path", us_view, GOAL_VIEW, Peer(name, one))
        report.add(f"decision of a part of {VIEWS} views, collate + network", us_part, GOAL_PART, Peer(name, three))
    model = whole_model()
    report.add(
        f"whole decision of a trained model, {VIEWS} views: network, good parts, familiarity",
        measure(lambda: model.judge(part), 31, 5),
        GOAL_PART,
        Peer("the network alone", us_part),
        good_parts_alone_ms=round(1e3 * measure(lambda: model.good.judge(part), 15, 3).median_s, 1),
    )
    add_shares(report, network, ready, part)


def peer_timings(name: str, part: PartInput) -> tuple[Timing, Timing]:
    """Of one image, and of all of the part."""
    made = anomaly_peers.ready(name)
    images = torch.from_numpy(part.images[:, :3].copy()).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        return measure(lambda: made(images[:1]), 7, 2), measure(lambda: made(images), 5, 1)


def add_shares(report: Report, network: PartNetwork, ready: ReadyNetwork, part: PartInput) -> None:
    """What preparing gains, what each branch takes alone, what the forward costs."""
    batch = collate([part])
    with torch.inference_mode():
        as_trained = measure(lambda: network(batch), 15, 3)
    cost, forward = cost_of(ready, batch), measure(lambda: ready.judge_batch(batch), 31, 5)
    report.add(
        "forward of a part, without collate",
        forward,
        GOAL_PART,
        Peer("the same network in evaluation mode, not prepared", as_trained),
        parameters=sum(weight.numel() for weight in network.parameters()),
        multiply_adds_m=round(cost.flops / 2e6, 1),
        gflop_per_s=round(cost.flops / forward.median_s / 1e9, 1),
        least_traffic_mb=round(cost.least_bytes / 1e6, 1),
        traffic_as_written_mb=round(cost.eager_bytes / 1e6, 1),
        gpu="not measured in this run; models_speed_cuda.json holds it where one was there",
    )
    report.add("collate alone", measure(lambda: collate([part]), 31, 5), GOAL_PART)
    for reading in (Reading.IMAGE, Reading.POINTS):
        alone = measure(lambda reading=reading: ready.judge_batch(batch, reading), 15, 3)  # type: ignore[misc]
        report.add(f"forward of a part, {reading} alone", alone, GOAL_PART)
    eight = [shaped_part(seed) for seed in range(8)]
    together = measure(lambda: ready.judge(eight), 5, 1)
    per_part = Timing(together.median_s / 8, together.p10_s / 8, together.p90_s / 8, together.n)
    report.add("a part in a batch of 8, collate + network", per_part, GOAL_PART)


def add_memory(report: Report) -> None:
    """Peak of a fresh process per side; the times are of the whole process and mean nothing."""
    peaks = {name: peak_mb(name) for name in ("ours", *anomaly_peers.PEERS)}
    report.add(
        "memory: a process that judges ten parts",
        timing_of([0.0]),
        Goal(),
        peak_mb={name: peak for name, (_, peak) in peaks.items()},
        of_which_imports_mb={name: imports for name, (imports, _) in peaks.items()},
        goal_mb=GOAL_MEMORY_MB,
        goal_met=peaks["ours"][1] <= GOAL_MEMORY_MB,
    )


def peak_mb(name: str) -> tuple[int, int]:
    """After imports, and at the peak, in a process of its own."""
    command = [sys.executable, __file__, "--peak-of", name]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return int(out[-2]), int(out[-1])


def print_peak(name: str) -> None:
    """What `peak_mb` asks for."""
    before = resident_mb()
    part = shaped_part(0)
    if name == "ours":
        model = whole_model()
        run: Callable[[], object] = lambda: model.judge(part)  # noqa: E731
    else:
        made, images = anomaly_peers.ready(name), torch.from_numpy(part.images[:1, :3].copy())
        run = lambda: made(images)  # noqa: E731
    with torch.inference_mode():
        for _ in range(10):
            run()
    print(before, resident_mb())


def resident_mb() -> int:
    """Largest resident size of this process so far."""
    # Not getrusage: its peak outlives exec(2), and so would be the parent's.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.findall(r"^VmHWM:\s+(\d+) kB", status, flags=re.MULTILINE)[0]) // 1024


# --- a GPU -----------------------------------------------------------------------------------------------------------


def add_device(report: Report, device: str, card: Card, repetitions: int) -> str:
    """Per part and in batches on a device; returns the profile."""
    ready = prepare(trained_shape(), device)
    add_latency(report, ready, repetitions)
    for size in BATCHES if device == "cuda" else BATCHES[:2]:
        add_batch(report, ready, card, size, repetitions)
    return profile_of(ready, collate([shaped_part(0)]).to(device))


def add_latency(report: Report, ready: ReadyNetwork, repetitions: int) -> None:
    """One part after the other, from NumPy to logits that are there: collate, copy, network, wait."""
    parts = [shaped_part(seed) for seed in range(4)]
    for part in parts * 3:
        finished(ready, lambda part=part: ready.judge([part]))  # type: ignore[misc]
    seconds = [
        timed(ready, lambda part=parts[turn % 4]: ready.judge([part]))  # type: ignore[misc]
        for turn in range(repetitions)
    ]
    p50, p99 = np.quantile(seconds, (0.5, 0.99))
    report.add(
        f"p99 of a part on {device_name(ready.device)}, one at a time, collate + copy + network",
        Timing(float(p99), float(p50), float(max(seconds)), repetitions),
        GOAL_GPU,
        p50_ms=round(float(p50) * 1e3, 3),
        p99_ms=round(float(p99) * 1e3, 3),
        columns="median_s is the p99, p10_s the p50, p90_s the greatest",
        precision="bfloat16" if ready.half else "float32",
    )


def add_batch(report: Report, ready: ReadyNetwork, card: Card, size: int, repetitions: int) -> None:
    """A batch that lies on the device, its cost, and how many times the floor of the roofline it takes."""
    batch: PartBatch = collate([shaped_part(seed % 8) for seed in range(size)]).to(ready.device)
    cost = cost_of(ready, batch)
    timing = measure(lambda: finished(ready, lambda: ready.judge_batch(batch)), max(5, repetitions // 10), 5)
    floor_s, roof = cost.floor_s(card)
    report.add(
        f"batch of {size} on {device_name(ready.device)}, on the device already",
        timing,
        Goal(),
        parts_per_s=round(size / timing.median_s, 1),
        gflop=round(cost.flops / 1e9, 3),
        least_traffic_mb=round(cost.least_bytes / 1e6, 1),
        traffic_as_written_mb=round(cost.eager_bytes / 1e6, 1),
        stated_tflop_per_s=card.flops / 1e12,
        stated_gb_per_s=card.bytes_per_s / 1e9,
        floor_ms=round(floor_s * 1e3, 4),
        roof=roof,
        times_the_floor=round(timing.median_s / floor_s, 1),
    )


def finished(ready: ReadyNetwork, run: Callable[[], object]) -> None:
    """Run, and wait until the device is done."""
    run()
    if ready.device.type == "cuda":
        torch.cuda.synchronize(ready.device)


def timed(ready: ReadyNetwork, run: Callable[[], object]) -> float:
    """Seconds until it is done."""
    start = time.perf_counter()
    finished(ready, run)
    return time.perf_counter() - start


def device_name(device: torch.device) -> str:
    """What the driver calls it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU, in place of a GPU"


def main() -> None:
    """Measure on two cores, or on another device."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cores", "cuda", "cpu"), default="cores", help="cpu: try the GPU's path")
    parser.add_argument("--tflops", type=float, default=989.0, help="dense bfloat16 of the card; H100 SXM by its maker")
    parser.add_argument("--gb-per-s", type=float, default=3350.0, help="memory of the card; H100 SXM by its maker")
    parser.add_argument("--repetitions", type=int, default=500, help="parts judged one at a time on the device")
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(2)
    if given.peak_of:
        print_peak(given.peak_of)
    elif given.device == "cores":
        report = Report("models_speed")
        add_cpu(report)
        add_memory(report)
        report.write()
    else:
        report = Report(f"models_speed_{given.device}")
        card = Card(given.tflops * 1e12, given.gb_per_s * 1e9)
        profile = add_device(report, given.device, card, given.repetitions)
        report.write()
        write_text(RESULTS / f"models_speed_{given.device}_profile.txt", profile + "\n")


if __name__ == "__main__":
    main()
