"""`python -m gpudev`."""

from gpudev.cli import main

main()
