"""The studies, by name."""

import difflib

from ablations.studies import all_algorithms, credit, quickstart
from ablations.study import Study
from lit_rl.errors import UsageError

STUDIES: dict[str, Study] = {study.name: study for study in (quickstart.STUDY, credit.STUDY, all_algorithms.STUDY)}


def find(name: str) -> Study:
    """The study of that name.

    Raises:
        UsageError: there is none.
    """
    if name in STUDIES:
        return STUDIES[name]
    near = difflib.get_close_matches(name, STUDIES, 1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise UsageError(f"no study '{name}'{hint}; `python -m ablations list` names them: {', '.join(STUDIES)}")
