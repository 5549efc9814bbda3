"""`python -m gptdynamics`."""

from gptdynamics.cli import main

main()
