"""The oracle: whole response trees, exact gradients, and the expectation of an algorithm's own code.

It imports the algorithms that it judges and what stands below them; nothing trains with it. Begin with ``tree.py``;
``claims.py`` is what the certificate says of each estimator.
"""
