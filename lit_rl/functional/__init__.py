"""The arithmetic of the estimators: functions from tensors to tensors.

They import torch and the ranges of numbers, and no model. Begin with ``advantages.py`` and ``prefix_values.py``.
"""
