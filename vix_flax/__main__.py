"""`python -m vix_flax` is the `vix` command."""

import sys

from vix_flax.cli import main

sys.exit(main())
