"""MLflow may be away for a moment: calls wait for it and are tried again."""

import math
import os
import re
import socket
import sys
import threading
import time
import urllib.error
from collections.abc import Callable
from typing import TypeVar

from lit_rl.errors import UsageError
from lit_rl.tracking.deferral import deferred

SETTING = "LIT_RL_MLFLOW_PATIENCE"  # an environment variable, in seconds
SECONDS = 60.0
PAUSES = 0.1, 1.0  # seconds between tries: the first pause, and the longest
SILENCE = 5.0  # seconds of waiting before anything is said
ONE_TRY = "20"  # seconds that a request may take; MLflow gives a locked SQLite as many
UNAVAILABLE = {"TEMPORARILY_UNAVAILABLE", "DEADLINE_EXCEEDED", "REQUEST_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED"}
BUSY = {408, 425, 429, 500, 502, 503, 504}  # HTTP
NO_CONNECTION = re.compile("refused|timed? ?out|closed the connection|starting up|too many (connections|clients)", re.I)

Result = TypeVar("Result")


class Away(UsageError):
    """MLflow did not answer for as long as patience lasts.

    Args:
        uri: of the server or database.
        seconds: that patience lasted.
        why: what the last try met with.

    Attributes:
        kept: the checkpoint that has what could not be written.
    """

    def __init__(self, uri: str, seconds: float, why: str) -> None:
        super().__init__(uri, seconds, why)  # as it is pickled
        self.uri, self.seconds, self.why = uri, seconds, why
        self.kept: str | None = None

    def __str__(self) -> str:
        line = f"MLflow at {shown(self.uri)} did not answer for {self.seconds:g} s ({self.why}); start it again"
        if self.kept is None:
            return f"{line}, or raise {SETTING}"
        return f"{line} and resume with --ckpt_path {self.kept}, which has the metrics that could not be written"


def tell(line: str) -> None:
    """Says that something waits. Cells of a sweep have another one: the terminal is not theirs."""
    print(line, file=sys.stderr, flush=True)


def patience() -> float:
    """Seconds for which a call waits for MLflow, from ``LIT_RL_MLFLOW_PATIENCE``.

    Raises:
        UsageError: it is no number of seconds.
    """
    text = os.environ.get(SETTING, str(SECONDS))
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise UsageError(f"{SETTING} is '{text}'; it is a number of seconds, at least 0")
    return seconds


def shown(uri: str) -> str:
    """A URI as it may be printed: without the password."""
    return re.sub(r"(://[^/@:]*):[^/@]*@", r"\1:***@", uri)


def patiently(call: Callable[[], Result], uri: str) -> Result:
    """What ``call`` returns; it is tried again while MLflow at ``uri`` is away for a moment.

    A try that failed may have reached MLflow all the same: ``call`` does no harm when it is repeated. The last try may
    begin at the end of patience, and takes 20 s at most. One line on stderr says that something waits.

    Raises:
        Away: patience ended.
        Exception: what ``call`` raises, if it is no error that passes.
    """
    seconds = patience()
    until, pause = time.monotonic() + seconds, PAUSES[0]
    line = f"lit_rl: MLflow at {shown(uri)} does not answer; waiting up to {seconds:g} s for it ({SETTING})"
    notice = threading.Timer(SILENCE, lambda: tell(line))
    notice.daemon = True
    notice.start()
    try:
        while True:
            try:
                with deferred():  # a transaction that a signal cuts in two would keep the database locked
                    return call()
            except Exception as error:
                left = until - time.monotonic()
                if not passing(error):
                    raise
                if left <= 0:
                    raise Away(uri, seconds, reason(error)) from None
            time.sleep(min(pause, left))
            pause = min(2 * pause, PAUSES[1])
    finally:
        notice.cancel()
        notice.join()


def reason(error: BaseException) -> str:
    """The first line of an error, or of what is behind it, without the parts that only a programmer can read."""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    short = re.search(r"\[Errno -?\d+\] ([^'\")>]+)|(\w+ is locked)|too many (\d+) error", text)
    if short is None:
        return text
    return f"HTTP status {short[3]}" if short[3] else short[1] or short[2]


def passing(error: BaseException) -> bool:
    """Whether an error is that of a server or database which is away or busy: it may answer if asked again.

    Not so are refusals: a login, a request that is wrong, a certificate, a file that can't be opened, a full disk.
    """
    text = str(error)
    if "is locked" in text and "sqlite3" in text:
        return True
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, BaseException):
        error = error.reason
    if isinstance(error, socket.gaierror):
        return error.errno == socket.EAI_AGAIN
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    import requests.exceptions as http  # slow, where nothing else has needed them
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import OperationalError

    if isinstance(error, http.HTTPError):
        return error.response is not None and error.response.status_code in BUSY
    if isinstance(error, http.ConnectionError | http.Timeout | http.RetryError | http.ChunkedEncodingError):
        return not isinstance(error, http.SSLError)
    if isinstance(error, OperationalError):  # of a database that isn't SQLite
        return "sqlite3" not in text and NO_CONNECTION.search(text) is not None
    if isinstance(error, MlflowException):
        behind = error.__cause__ or error.__context__  # MLflow wraps what went wrong on the way to the server
        away = behind is not None and not isinstance(behind, MlflowException) and passing(behind)
        return away or (error.error_code in UNAVAILABLE and "sqlite3" not in text)
    return False
