"""A study's exact rows as a table, and what they came to in words."""

from ablations.analysis.tables import Column, Table
from ablations.metric_names import PREDICTED
from ablations.records.study_results import StudyResults

HEADING = "Enumerated"
SAYS = "has the exact bias and noise of each combination, beside the bias that theory predicts."
GUIDE = (
    "A row is a combination of settings; its gradient was enumerated over all responses, by the code that trains. "
    "*Relative bias*: |E[estimate] - g| / |g|, where g is the exact gradient of what is to be earned; *predicted "
    "bias*: the same of theory's formula, empty where none is known; *disagreement*: |E[estimate] - formula| / |g|, 0 "
    "below 1e-9. *Noise*: the trace of the covariance of one prompt's gradient, relative to a row that has 1; "
    "*predicted noise*: where theory says whose noise it has. *Holds*: whether both agree within 1e-9."
)
PER_TOKEN = (
    " *Noise per token*: when as many tokens are generated; *predicted noise per token*: not in closed form, "
    "but by the share of the reward's variance that is decided at each cut."
)
SAYS_PREDICTED = "has the noise that theory predicts for arms whose responses can be enumerated."
PREDICTIONS = (
    "All responses of the start are enumerated, with their exact values. *Predicted noise per response*, and per "
    "generated token, relative to RLOO's: E Σ A² |ψ|² over the tokens of a response, where A² has the variance of "
    "estimated values, and ψ is the score function at the token's logits."
)
FORM = ".4g"


def table(results: StudyResults) -> Table:
    """Without rows where the study has none."""
    names = list(results.exact[0]) if results.exact else []
    rows = [[_value(row[name]) for name in names] for row in results.exact]
    columns = [Column(name, "", FORM) for name in names]
    if PREDICTED in names:
        return Table("exact", HEADING, SAYS_PREDICTED, columns, rows, PREDICTIONS)
    guide = GUIDE + PER_TOKEN * ("noise per token" in names)
    return Table("exact", HEADING, SAYS, columns, rows, guide)


def sentence(results: StudyResults) -> str:
    """How many rows agree with their prediction, and the worst that does not; empty without rows."""
    judged = [row for row in results.exact if row.get("holds")]
    if not judged:
        return ""
    holding = sum(row["holds"] == "yes" for row in judged)
    if holding == len(results.exact):
        return f"All {holding} combinations enumerated without training are what theory predicts, within 1e-9."
    worst = max(float(row["disagreement"]) for row in judged)
    largest = f"{worst:.2g} of the gradient's length" if worst else "below 1e-9 of the gradient's length"
    return (
        f"Of {len(results.exact)} combinations enumerated without training, {holding} of the {len(judged)} with a "
        f"formula agree with it; the largest disagreement is {largest}."
    )


def _value(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text
