"""Numba loops behind the cpu backend."""
