"""Real servers for the tests, each started on loopback in a directory of its own."""
