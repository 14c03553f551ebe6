"""What time it is for certificates: the API server's clock, which judges them, beside our own."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from service.logs import SECONDS

#: Our clock counts to the microsecond, the API server tells seconds; both answer a little late.
_AGREES = timedelta(seconds=30)

Now = Callable[[], datetime]

log = structlog.get_logger()


class Clock:
    """Tells our time, or the API server's where ours is wrong.

    A certificate that was made by a clock 40 days ahead is valid for nobody else.
    """

    def __init__(self, *, ours: Now, server: Now) -> None:
        self._ours = ours
        self._server = server
        self._wrong = False
        #: How far our clock is ahead of the API server's.
        self.ahead = timedelta(0)

    def now(self) -> datetime:
        """Ask the API server, and return what counts as now; raises `KubeError`."""
        told, ours = self._server(), self._ours()
        self.ahead = ours - told
        wrong = abs(self.ahead) > _AGREES
        if wrong and not self._wrong:
            log.warning(
                "the clock of this machine and the API server's differ, set it right; the API "
                "server's is used for certificates",
                **{SECONDS: round(self.ahead.total_seconds())},
            )
        self._wrong = wrong
        return told if wrong else ours
