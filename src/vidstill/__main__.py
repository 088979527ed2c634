"""`python -m vidstill`, which is how torchrun starts it."""

from vidstill.cli import main

main()
