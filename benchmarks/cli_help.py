"""How long `depthcell --help` takes, as a user waits for it: a fresh process each time. The goal is half a second."""

import subprocess
import sys

from harness import Goal, Report, measure


def main() -> None:
    """Measure the help of the whole and of a verb."""
    report = Report("cli_help")
    for words in (("--help",), ("inspect", "--help")):
        command = [sys.executable, "-m", "depthcell", *words]
        timing = measure(lambda command=command: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))
        report.add(f"depthcell {' '.join(words)}", timing, Goal(seconds=0.5))
    report.write()


if __name__ == "__main__":
    main()
