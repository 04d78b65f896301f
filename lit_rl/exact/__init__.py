"""The oracle: all responses of a small task, exact gradients, and the expectation of an algorithm's own code.

It imports the algorithms that it judges and what stands below them; nothing trains with it. Begin with ``tree.py``.
``claims.py``, ``group_claims.py`` and ``turn_claims.py`` list what the certificate claims of each estimator.
"""
