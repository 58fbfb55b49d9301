"""Networks and heads of the autoregressive sampler."""
