"""The studies, by name: a file a study, of what ``parts.py`` has.

They may import a study's definition alone. Begin with ``quickstart.py``. Studies outside the package are found by
``own.py``.
"""

import difflib

from ablations.studies import (
    all_algorithms,
    binary_math,
    binary_math_larger,
    own,
    position_credit,
    quickstart,
    sampling_budget,
    sampling_budget_larger,
    wall_clock,
)
from ablations.study import Study
from lit_rl.errors import UsageError

CERTIFICATE = "certificate"  # a study without runs

STUDIES: dict[str, Study] = {
    study.key: study
    for study in (
        quickstart.STUDY,
        position_credit.STUDY,
        sampling_budget.STUDY,
        sampling_budget_larger.MID,
        sampling_budget_larger.SMALL,
        binary_math.STUDY,
        binary_math_larger.MID,
        wall_clock.STUDY,
        all_algorithms.STUDY,
    )
}


def find(name: str, scale: str = "tiny") -> Study:
    """The study of that name and scale, or at that import path.

    Raises:
        UsageError: there is none, or it can't be loaded.
    """
    scales = {study.scale: study for study in STUDIES.values() if study.name == name}
    if scale in scales:
        return scales[scale]
    if scales:
        raise UsageError(f"--scale {scale}: {name} has {', '.join(scales)}")
    if (study := own.load(name, {*STUDIES, CERTIFICATE})) is not None:
        if scale not in ("tiny", study.scale):
            raise UsageError(f"--scale {scale}: {name} has {study.scale}")
        return study
    names = list(dict.fromkeys(study.name for study in STUDIES.values()))
    near = difflib.get_close_matches(name, names, 1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise UsageError(
        f"no study '{name}'{hint}, and no such module (your own goes by its import path, my_study for my_study.py); "
        f"`python -m ablations list` names them: {', '.join(names)}"
    )
