"""The estimators' arithmetic: tensors in, tensors out.

It imports torch and the ranges of numbers, and no model. Begin with ``advantages.py`` and ``prefix_values.py``.
"""
