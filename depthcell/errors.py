"""The errors depthcell raises on purpose: a reason for programs, a sentence that says what to do for people."""

from enum import StrEnum


class Reason(StrEnum):
    """Why depthcell refused. A program switches on this; a person reads the message."""

    BAD_INPUT = "bad_input"
    FRAME_MISMATCH = "frame_mismatch"
    RECORDING_DAMAGED = "recording_damaged"
    RECORDING_UNSUPPORTED = "recording_unsupported"
    DEVICE_MISSING = "device_missing"
    DEVICE_LOST = "device_lost"
    DISK_FULL = "disk_full"
    OVERLOAD = "overload"
    CELL_INVALID = "cell_invalid"
    RECIPE_INVALID = "recipe_invalid"
    MODEL_INVALID = "model_invalid"
    ALIGNMENT_FAILED = "alignment_failed"
    PART_MISSING = "part_missing"
    WRONG_POSE = "wrong_pose"
    SEVERAL_PARTS = "several_parts"
    WRONG_PART = "wrong_part"
    TRANSPORT = "transport"
    NOT_MEASURED = "not_measured"


class DepthcellError(Exception):
    """What went wrong, where, and what to do next, in one line.

    Attributes:
        reason: the machine-readable cause.
    """

    def __init__(self, message: str, reason: Reason = Reason.BAD_INPUT) -> None:
        super().__init__(message)
        self.reason = reason
