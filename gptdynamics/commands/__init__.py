"""Commands of `gptdynamics`, one a module."""
