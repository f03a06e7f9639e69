"""`python -m tests.cheats`; see `tests.cheats.running`."""

import sys

from tests.cheats.running import main

sys.exit(main())
