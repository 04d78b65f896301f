"""The learning rates that the trials of a study chose."""

from ablations.analysis.tables import Column, Table, Value, listed
from ablations.study import Study

COLUMNS = Column("arm"), Column("learning rate", "", "g"), Column("at the edge of those tried")
SAYS = "has the learning rates: for each arm the best of {tried} on seed{s} {seeds}, by the primary metric."
GUIDE = (
    "Rates were chosen by the mean over tasks, on seeds that the study does not use otherwise; of equal ones the "
    "lowest."
)


def table(study: Study) -> Table:
    """Without rows where no rates were tuned."""
    tuning = study.tuning
    if tuning is None:
        return Table("learning_rates", "How it was made", "", COLUMNS, [])
    chosen = {
        arm.tuned_as: arm.config["model"]["init_args"]["learning_rate"]
        for arm in study.arms
        if arm.tuned_as is not None
    }
    edges = min(tuning.rates), max(tuning.rates)
    rows: list[list[Value]] = [[name, rate, "yes" if rate in edges else "no"] for name, rate in chosen.items()]
    tried, seeds = listed([f"{rate:g}" for rate in tuning.rates]), listed([*map(str, tuning.seeds)])
    says = SAYS.format(tried=tried, s="s" if len(tuning.seeds) > 1 else "", seeds=seeds)
    return Table("learning_rates", "How it was made", says, COLUMNS, rows, GUIDE)
