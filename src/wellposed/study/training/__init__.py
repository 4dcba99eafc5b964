"""Data, networks and runs."""
