"""A test kit for whoever builds on asyncstore: faults and latency between client and server."""
