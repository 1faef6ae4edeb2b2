"""The command line: one table of verbs. Each room brings its own in `commands.py`; heavy imports wait for the verb."""

import errno
import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from depthcell import __version__
from depthcell.acquisition import commands as acquisition
from depthcell.calib import commands as calibration
from depthcell.errors import DepthcellError, Reason
from depthcell.fusion import commands as fusion
from depthcell.inspect import commands as inspection
from depthcell.inspect.learning import commands as learning

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130


class CalibrateGroup(TyperGroup):
    """`depthcell calibrate FOLDER` is `depthcell calibrate cell FOLDER`: what people come for needs no word."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the word in where no other verb stands."""
        is_help = any(word in ctx.help_option_names for word in args[:1])
        if args and not is_help and args[0] not in self.commands:
            args = [calibration.cell.__name__, *args]
        return list(super().parse_args(ctx, args))


app = typer.Typer(
    name="depthcell",
    help="Inspect manufactured parts in 3D: recordings in, verdicts in millimetres with uncertainty out.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
VERBS = (
    acquisition.devices,
    acquisition.record,
    inspection.simulate,
    calibration.plan,
    inspection.verify,
    fusion.fuse,
    inspection.evaluate,
    inspection.inspect,
    inspection.measure,
    learning.golden,
    learning.train,
    learning.explain,
    inspection.listen,
    inspection.demo,
)
CALIBRATE = (
    calibration.cell,
    calibration.board,
    calibration.guide,
    calibration.handeye,
    calibration.seal,
    calibration.trust,
    calibration.check,
)
STUDY = (calibration.type1, calibration.grr, calibration.capability)
CALLS: Mapping[tuple[str, ...], Callable[..., None]] = {
    **{(verb.__name__,): verb for verb in VERBS},
    **{("calibrate", verb.__name__): verb for verb in CALIBRATE},
    **{("study", verb.__name__): verb for verb in STUDY},
}
"""Words of a call -> the function that does it."""
GROUPS = {
    "calibrate": typer.Typer(
        cls=CalibrateGroup,
        help="Calibrate a cell: depthcell calibrate FOLDER --board SPEC; and what belongs to it.",
    ),
    "study": typer.Typer(help="Study a gauge: type 1, repeatability and reproducibility, capability."),
}
for group_name, group in GROUPS.items():
    app.add_typer(group, name=group_name, no_args_is_help=True, context_settings=app.info.context_settings)
for call_words, function in CALLS.items():
    (app if len(call_words) == 1 else GROUPS[call_words[0]]).command()(function)


FULL = frozenset((errno.ENOSPC, errno.EDQUOT))
NOT_OURS = FULL | {errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG}
"""Errors of the place that a person named, wherever a verb met them; any other is a mistake of ours."""


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"depthcell {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Inspect manufactured parts in 3D: recordings in, verdicts in millimetres with uncertainty out."""


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run one verb and leave with its exit code.

    0: done. 2: the input or the call is wrong; one line on standard error names the field or file and what to do.
    130: interrupted by Ctrl-C.
    """
    # Our matrices are small. On a busy machine BLAS threads that wait for each other made single verdicts a second
    # late (measured: worst of 24 from 1230 to 242 ms, median from 184 to 165), and sums must not depend on the cores.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    words = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        code = app(words, standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        code = EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone, as in `depthcell inspect ... | head`; nothing is left to tell it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except DepthcellError as error:
        code = _refuse(str(error), error.reason.value, words)
    except OSError as error:
        if error.errno not in NOT_OURS:
            raise
        where = "" if error.filename is None else f"{error.filename}: "
        reason = Reason.DISK_FULL if error.errno in FULL else Reason.BAD_INPUT
        code = _refuse(f"{where}{error.strerror}; make room, or name a place that can be written", reason.value, words)
    except TyperException as error:
        known = next((words[:count] for count in (2, 1) if _is_call(tuple(words[:count]))), [])
        call = " ".join(["depthcell", *known, "--help"])
        code = _refuse(f"{error.format_message().rstrip('.')}; see {call}", "usage", words)
    if code == EXIT_INTERRUPTED:  # also what typer makes of Ctrl-C
        print("depthcell: interrupted; no half-written file was left", file=sys.stderr)
    sys.exit(code or 0)


def _is_call(words: tuple[str, ...]) -> bool:
    return words in CALLS or (len(words) == 1 and words[0] in GROUPS)


def _refuse(message: str, reason: str, words: list[str]) -> int:
    line = " ".join(message.split())
    print(f"depthcell: {line}", file=sys.stderr)
    if "--json" in words:
        print(json.dumps({"error": line, "reason": reason}))
    return EXIT_BAD_INPUT
