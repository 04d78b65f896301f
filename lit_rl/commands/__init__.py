"""What is typed: ``python -m lit_rl fit|validate|test|estimate|verify|fit-reward|export``, and what make targets run.

It may import everything else of the package, and nothing imports it but ``ablations``. Begin with ``cli.py``.
"""
