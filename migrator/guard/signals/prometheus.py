"""A Prometheus query of the user's."""

import json
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass

from migrator.guard.signal import Signal, Subject, UnavailableError, Unit
from migrator.postgres.connection import Connection

# Seconds that an answer may take; the next look comes a second later anyway.
TIMEOUT_S = 2.0


@dataclass
class Prometheus(Signal):
    """
    The largest sample of an instant query.

    Args:
        name: the user's name for it.
        url: of the server, e.g. `http://prometheus:9090`.
        promql: the query.

    Source: Prometheus manual, HTTP API, instant queries.
    """

    name: str
    url: str
    promql: str
    unit = Unit.COUNT

    def read(self, conn: Connection, subject: Subject) -> tuple[float, str]:
        """Return the sample."""
        words = urllib.parse.urlencode({"query": self.promql})
        url = f"{self.url.rstrip('/')}/api/v1/query?{words}"
        if not url.startswith(("http://", "https://")):
            raise UnavailableError("its url is neither http nor https")
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
                data = json.load(answer)["data"]
            samples = (
                [data["result"]]
                if data["resultType"] == "scalar"
                else [s["value"] for s in data["result"]]
            )
            return max(float(s[1]) for s in samples), ""
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise UnavailableError(f"no number from Prometheus: {error}") from error
