"""What `gptdynamics verify` checks, file by file."""
