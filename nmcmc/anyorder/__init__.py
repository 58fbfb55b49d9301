"""Any-order samplers: one network conditions on any known subset of the spins, and serves other sizes and betas."""
