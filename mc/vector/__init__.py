"""Vector spins: N spins in R^D with dense couplings, a field on each, and their mean field."""
