"""Run depthcell as `python -m depthcell`."""

from depthcell.cli import main

if __name__ == "__main__":
    main()
