"""Boundary matrix-product states: what the rows still to come say about the spins of the present row."""
