"""The one exception that is a user's to mend."""


class UsageError(Exception):
    """A wrong setting, file or server: printed as one line that names it and says what to do; exit code 2."""
