"""`python -m tokamak` is the command `tokamak`."""

import sys

from tokamak.cli.main import main

sys.exit(main())
