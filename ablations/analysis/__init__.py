"""Numbers from records: intervals over seeds, planned comparisons, gradient noise, credit, values.

It may import ``records`` and a study's definition; it draws and writes no file. Begin with ``verdicts.py``, what is
concluded from a comparison; the statistics are in ``statistics.py``.
"""
