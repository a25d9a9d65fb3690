"""A plugin that ends the process that imports it, and talks before."""

import sys

print("goodbye")
sys.exit(3)
