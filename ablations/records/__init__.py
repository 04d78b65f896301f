"""What runs have left: the cells of a study as MLflow has them, or the CSV of its last report.

It may import a study's definition and no other room. Begin with ``study_results.py``; MLflow's side is
``experiment.py``.
"""
