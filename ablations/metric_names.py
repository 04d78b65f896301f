"""The names of what a study is decided by and what a report reads, as they stand in MLflow and in a study's metric."""

# curves of a cell
CREDIT = "credit/"  # begins those of the callback of that name: credit/<what>/<position>
SECONDS, STEPS = "seconds", "progress/optimizer_steps"  # since the start: of training, and taken
MEMORY = "memory/peak"  # MiB

# metrics that are made of a cell's curves: these begin them
OVER_TOKENS, OVER_SECONDS = "over_tokens/", "over_seconds/"  # before a curve: its mean over the budget of them
END = "end/"  # before a curve: its last value
RECOVERED = "recovered/"  # before positions such as 1+3: the part of their exact gradient that estimates have
FLAGGED = "flagged/"  # before a warning: 1 if it was ever raised, otherwise 0
NOISE = "noise/"  # before a cost: the logarithm of tr Sigma when as much is spent

PREDICTED = "predicted noise per response"  # a column of exact rows that have one for an arm

# costs: of a response, a generated token, a second, or generated and trained tokens of which a trained one is K
RESPONSE, TOKEN, SECOND, KAPPA = "response", "token", "second", "kappa="
