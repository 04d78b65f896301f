"""Exact tables of studies: what :mod:`lit_rl.exact` enumerates of a study's arms, without training. A file a study.

Each has the function that the study names as its ``exact``. Begin with ``rows.py``, which says what a row has.
"""
