"""Several live cameras as one stream of frame sets, whichever of them come and go."""

from collections.abc import Iterator, Sequence

from depthcell.acquisition.camera import RealSenseCamera
from depthcell.acquisition.frameset import FrameSet
from depthcell.acquisition.synchronizer import Synchronizer, SyncSettings


def live_framesets(
    cameras: Sequence[RealSenseCamera], settings: SyncSettings, timeout_s: float = 0.5
) -> Iterator[FrameSet]:
    """Frame sets of open cameras, without end.

    A camera that gives nothing for `timeout_s` is `missing` in the sets until it gives frames again. While all are
    silent nothing comes, until one of them counts as lost.

    Raises:
        DepthcellError: a camera is lost, or its frames cannot be grouped.
    """
    synchronizer = Synchronizer([camera.settings.serial for camera in cameras], settings)
    silent: set[str] = set()
    while True:
        for camera in cameras:
            serial = camera.settings.serial
            if serial not in silent and serial not in synchronizer.waiting_for:
                continue
            # One that is known to be silent is only looked at, so that it does not hold up the others.
            is_alone = len(silent) == len(cameras)
            if camera.capture(timeout_s if serial not in silent or is_alone else 0.0):
                silent.discard(serial)
                yield from synchronizer.push(camera.read())
            elif serial not in silent:
                silent.add(serial)
                yield from synchronizer.end(serial)
