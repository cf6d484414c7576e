"""One HTTP request with a time limit that holds: from connecting to the last byte, however slowly it drips."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

SHORTEST_SECRET = 12
"""Characters from which on a key is one that somebody gave out; shorter ones are for servers that check none."""


@dataclass(frozen=True)
class Wire:
    """Where to post, and within which bounds.

    Attributes:
        url: http or https.
        key: goes into the Authorization header; empty sends none. What comes back is freed of it, but for a placeholder
            (shorter than `SHORTEST_SECRET`) such as "none", which answers hold too.
        timeout_s: for everything together.
        max_bytes: of a reply.
    """

    url: str
    key: str = field(repr=False)
    timeout_s: float
    max_bytes: int

    def post(self, payload: bytes) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Status, headers and body of the reply; a body that is too long is replaced by a word that is no JSON.

        Raises:
            OSError: no connection, it broke, or the time is over.
            HTTPException: what came is no HTTP, or was cut off.
        """
        begin, late = time.monotonic(), threading.Event()
        with closing(self.connection()) as connection:
            connection.connect()
            # A socket's own time limit starts anew with every byte; this one does not.
            left = max(0.0, begin + self.timeout_s - time.monotonic())
            timer = threading.Timer(left, cut, (connection.sock, late))
            timer.daemon = True
            timer.start()
            try:
                status, headers, body = self.exchange(connection, payload)
            except (OSError, ValueError, http.client.HTTPException) as error:
                if late.is_set() or isinstance(error, TimeoutError):  # the socket's own limit may strike first
                    raise TimeoutError(f"no whole reply within timeout_s={self.timeout_s:g}") from error
                raise OSError(f"{type(error).__name__}: {error}".replace(self.secret or "\0", "***")) from error
            finally:
                timer.cancel()
        if late.is_set():
            raise TimeoutError(f"no whole reply within timeout_s={self.timeout_s:g}")
        return status, headers, body.replace(self.secret.encode(), b"***") if self.secret else body

    @property
    def secret(self) -> str:
        """The key, if it is none of the placeholders; else empty."""
        return self.key if len(self.key) >= SHORTEST_SECRET else ""

    def connection(self) -> http.client.HTTPConnection:
        """A connection that is not open yet."""
        parts = urlsplit(self.url)
        if parts.scheme == "http":
            return http.client.HTTPConnection(parts.hostname, parts.port, timeout=self.timeout_s)
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(parts.hostname, parts.port, timeout=self.timeout_s, context=context)

    def exchange(
        self, connection: http.client.HTTPConnection, payload: bytes
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Send, and read what comes; errors as of `post`."""
        headers = {"Content-Type": "application/json", "Connection": "close"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        connection.request("POST", urlsplit(self.url).path, payload, headers)
        response = connection.getresponse()
        body = response.read(self.max_bytes + 1)
        if len(body) > self.max_bytes:
            return response.status, response.headers, b"longer than max_reply_bytes"
        if response.length:  # bytes that were announced and did not come; `read` does not complain
            raise http.client.IncompleteRead(body, response.length)
        return response.status, response.headers, body


def cut(connected: socket.socket, late: threading.Event) -> None:
    """End a conversation that takes too long; the reader sees the end of the stream."""
    late.set()
    with suppress(OSError, ValueError):
        connected.shutdown(socket.SHUT_RDWR)


def wait_asked(headers: Mapping[str, str]) -> float:
    """Seconds that Retry-After asks for, as a number or a date; 0 where it does not."""
    asked = (headers.get("Retry-After") or "").strip()
    if asked.isascii() and asked.isdigit():
        return float(asked[:9])
    with suppress(ValueError, TypeError, OverflowError):
        return max(0.0, parsedate_to_datetime(asked).timestamp() - time.time())
    return 0.0
