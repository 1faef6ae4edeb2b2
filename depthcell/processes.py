"""How much of the machine one command takes."""

import os


def default_jobs() -> int:
    """One process for each core that this process may use."""
    return max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
