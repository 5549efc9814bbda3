"""The checks of `gptdynamics verify`, by kind of file."""
