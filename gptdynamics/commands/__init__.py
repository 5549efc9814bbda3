"""The commands of `gptdynamics`."""
