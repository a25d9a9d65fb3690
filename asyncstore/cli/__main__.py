"""`python -m asyncstore.cli`."""

import sys

from asyncstore.cli import main

sys.exit(main())
