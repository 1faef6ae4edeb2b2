"""When a frame was taken, on the clock that a track can be compared with."""

from depthcell.acquisition.frameset import CameraFrame, FrameSet


def instant_ns(frameset: FrameSet, frame: CameraFrame) -> int:
    """The frame's own time where it is on the frame set's clock, else the middle of the set's frames."""
    own_ns = frame.timestamp_ns
    shares_clock = frameset.timestamp_ns <= own_ns <= frameset.timestamp_ns + frameset.spread_ns
    return own_ns if shares_clock else frameset.timestamp_ns + frameset.spread_ns // 2
