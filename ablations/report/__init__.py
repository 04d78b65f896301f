"""Pages from numbers: ``results/<study>/report.md``, its figures, and the overview of all studies.

It may import ``analysis`` and what stands below it. Begin with ``study_report.py``.
"""
