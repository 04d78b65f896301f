"""The oracle: whole response trees, exact gradients, and the expectation of an algorithm's own code."""
