"""`python -m gptzoo` is `gptzoo`."""

from gptzoo.cli import main

main()
