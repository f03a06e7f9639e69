"""`python -m tests.laws`; see `tests.laws.running`, which worker processes import too."""

import sys

from tests.laws.running import main

sys.exit(main(sys.argv[1:]))
