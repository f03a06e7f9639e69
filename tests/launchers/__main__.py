"""`python -m tests.launchers`; see `tests.launchers.running`."""

import sys

from tests.launchers.running import main

sys.exit(main())
