"""Runs a study: its learning rates are tuned, and its cells run in processes of their own.

It may import ``records`` and a study's definition, not ``analysis`` or ``report``. Begin with ``runner.py``, then
``cell.py``.
"""
