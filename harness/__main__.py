"""`python -m harness`: the same as the command `msp-harness`."""

import sys

from harness.cli import main

sys.exit(main())
