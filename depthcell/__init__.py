"""depthcell inspects manufactured parts in 3D: RGB-D recordings in, verdicts in millimetres with uncertainty out."""

import os

# PyTorch's threads that have nothing to do go to sleep within some 0.1 ms, not several: on two cores they keep those of
# OpenCV and NumPy from working. Its OpenMP reads this once, when it is loaded; therefore here.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

__version__ = "0.1.0"
