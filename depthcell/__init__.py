"""depthcell inspects manufactured parts in 3D: RGB-D recordings in, verdicts in millimetres with uncertainty out."""

__version__ = "0.1.0"
