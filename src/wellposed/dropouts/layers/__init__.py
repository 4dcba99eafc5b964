"""Dropout modules, one family a file."""
