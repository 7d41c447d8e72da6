"""A Prometheus query of the user's."""

import base64
import json
import urllib.parse
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError

from migrator.guard.signal import Signal, Subject, UnavailableError, Unit, finite
from migrator.postgres.connection import Connection

# Seconds that an answer may take; the next look comes a second later anyway.
TIMEOUT_S = 2.0
# Of an answer that is an error: bytes that are read, and characters that are told.
MOST_BYTES = 65_536
MOST_SAID = 200


def address(url: str) -> tuple[str, str | None]:
    """
    Return where a server is, and what it takes for its user and password.

    Args:
        url: `http://` or `https://`, a user and password in it percent-encoded.

    Returns:
        The URL without them, and the header `Authorization`, None without a user.

    Raises:
        ValueError: it is none; the URL itself is not repeated.
    """
    try:
        found = urllib.parse.urlsplit(url)
        port = found.port
    except ValueError:
        # Its text has what was taken for a host or a port.
        raise ValueError("its url cannot be read") from None
    if found.scheme not in ("http", "https") or not found.hostname:
        raise ValueError("its url is neither http://HOST nor https://HOST")
    host = f"[{found.hostname}]" if ":" in found.hostname else found.hostname
    where = f"{found.scheme}://{host}{'' if port is None else f':{port}'}{found.path}"
    if found.username is None:
        return where, None
    words = map(urllib.parse.unquote, (found.username, found.password or ""))
    return where, f"Basic {base64.b64encode(':'.join(words).encode()).decode()}"


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
        """Return the sample; a single one that is no number hides all others."""
        try:
            data = self._answer()["data"]
            samples = (
                [data["result"]]
                if data["resultType"] == "scalar"
                else [s["value"] for s in data["result"]]
            )
            found = [finite(s[1], "a sample of the query") for s in samples]
        except (KeyError, IndexError, TypeError):
            raise UnavailableError(
                "no number from Prometheus: its answer is none"
            ) from None
        if not found:
            raise UnavailableError("no number from Prometheus: no sample")
        return max(found), ""

    def _answer(self) -> Any:
        """Return what the server answers; no error has its URL."""
        try:
            where, authorization = address(self.url)
        except ValueError as error:
            raise UnavailableError(str(error)) from None
        words = urllib.parse.urlencode({"query": self.promql})
        try:
            request = urllib.request.Request(
                f"{where.rstrip('/')}/api/v1/query?{words}"
            )
            if authorization is not None:
                # Not sent to where the server may redirect to.
                request.add_unredirected_header("Authorization", authorization)
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
                return json.load(answer)
        except HTTPError as error:
            why = self._said(error)
            raise UnavailableError(
                f"no number from Prometheus: {error}{f': {why}' if why else ''}"
            ) from None
        except OSError as error:
            raise UnavailableError(f"no number from Prometheus: {error}") from error
        except (HTTPException, ValueError) as error:
            # The text of some repeats what was asked for.
            raise UnavailableError(
                f"no number from Prometheus: {type(error).__name__}"
            ) from None

    def _said(self, answer: HTTPError) -> str:
        """
        Return what Prometheus says of a query that it refuses, in one line.

        Nothing where it is another's answer, or has what the URL has: whoever stands
        before the server may repeat what was sent to it.
        """
        try:
            found = json.loads(answer.read(MOST_BYTES))["error"]
        except (OSError, HTTPException, ValueError, LookupError, TypeError):
            return ""
        if not isinstance(found, str):
            return ""
        password = urllib.parse.urlsplit(self.url).password or ""
        hidden = {"://", "Basic ", password, urllib.parse.unquote(password)} - {""}
        if any(word in found for word in hidden):
            return ""
        return " ".join(found.split())[:MOST_SAID]
