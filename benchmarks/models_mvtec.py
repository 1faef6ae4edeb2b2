"""How well the baseline judges a class of MVTec 3D-AD: each method over several seeds, through `depthcell evaluate`.

Run `.venv/bin/python benchmarks/models_mvtec.py [--data FOLDER] [--seeds 5]`; a class's folder is not part of this
repository (CC BY-NC-SA 4.0). Data: `benchmarks/results/models_mvtec.json`. Each method runs in a process of its
own, so that its memory is its own. Each seed learns from its own draw of 90 % of train/good; no choice is made here,
and the threshold comes from good parts of train and validation alone.

Times are those of a shared machine unless it is left alone: take them as costs, not as claims.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy: small matrices only lose by more threads

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from harness import ROOT, Goal, Report, timing_of

DATA = ROOT / ".." / "shared" / "data" / "mvtec3d_subset" / "cable_gland"
METHODS = ("fused", "rgb", "depth")
GOALS = {"image_auroc": 0.95, "aupro_30": 0.975, "aupro_1": 0.46}  # of the fused method, on the mean over seeds
FIGURES = ("image_auroc", "pixel_auroc", "aupro_30", "aupro_1")
COUNTS = ("n_train", "n_validation", "n_test", "n_threshold")


def evaluated(data: Path, method: str, seeds: int) -> tuple[dict[str, Any], float]:
    """What `depthcell evaluate --json` says, and the seconds that it took."""
    command = [str(Path(sys.executable).with_name("depthcell")), "evaluate", str(data), "--method", method]
    started = time.perf_counter()
    done = subprocess.run([*command, "--seeds", str(seeds), "--json"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    result: dict[str, Any] = json.loads(done.stdout)
    return result, time.perf_counter() - started


def add_method(report: Report, result: dict[str, Any], seconds: float) -> None:
    """One row: figures over seeds, what the thresholds did, what it cost."""
    runs = result["runs"]
    report.add(
        f"{result['method']}: a part of {runs[0]['n_test']}, median of each of {len(runs)} seeds",
        timing_of([run["seconds_per_part"] for run in runs]),
        Goal(),
        **{name: result[name] for name in (*FIGURES, "missed", "false_rejects")},
        per_defect={kind: figures["image_auroc"] for kind, figures in result["per_defect"].items()},
        missed_by_seed=[run["missed"]["count"] for run in runs],
        n_defective=runs[0]["missed"]["total"],
        false_rejects_by_seed=[run["false_rejects"]["count"] for run in runs],
        n_good=runs[0]["false_rejects"]["total"],
        false_reject_asked=runs[0]["false_reject_asked"],
        false_reject_at_most=[round(run["false_reject_at_most"], 4) for run in runs],
        **{name: runs[0][name] for name in COUNTS},
        seeds=result["seeds"],
        learned_share=result["learned_share"],
        peak_memory_mb=max(run["peak_memory_mb"] for run in runs),
        seconds_all_seeds=round(seconds, 1),
    )


def add_verdict(report: Report, results: dict[str, dict[str, Any]], seconds: float) -> None:
    """Whether the fused method reaches the goals, and is no worse than the better branch."""
    fused = results["fused"]
    others = [method for method in METHODS if method != "fused"]
    best = {name: max(results[method][name]["value"] for method in others) for name in FIGURES}
    reached = {name: fused[name]["value"] >= goal for name, goal in GOALS.items()}
    no_worse = {f"{name} no worse": fused[name]["value"] >= value for name, value in best.items()}
    report.add(
        "fused against the goals, all methods together",
        timing_of([seconds]),
        Goal(words="every figure, and no worse than either branch", reached=all((reached | no_worse).values())),
        goals=GOALS,
        goals_met=reached,
        better_branch=best,
        fused_no_worse=no_worse,
    )


def main() -> None:
    """Evaluate every method, then compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of one class")
    parser.add_argument("--seeds", type=int, default=5)
    wanted = parser.parse_args()
    report, results, total = Report("models_mvtec"), {}, 0.0
    for method in METHODS:
        results[method], seconds = evaluated(wanted.data, method, wanted.seeds)
        add_method(report, results[method], seconds)
        total += seconds
    add_verdict(report, results, total)
    report.write()


if __name__ == "__main__":
    main()
