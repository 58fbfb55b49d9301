"""Numba kernels: one update rule a file."""
