"""HTTP client of the control API, for the command line.

It uses the standard library only: users wait for everything that a command imports.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from ops.errors import ApiRefused, ConfigError, NotAuthenticated, NotRunning

PREFIX = "/api/v1"
TIMEOUT_S = 30.0
# Registering and exporting copy gigabytes.
COPY_TIMEOUT_S = 3600.0
API_VARIABLE = "BERTSTREAM_API"
TOKEN_VARIABLE = "BERTSTREAM_TOKEN"
STATE_FILE = "state.json"
TOKEN_FILE = "token"


class ApiClient:
    """Sends the requests of one user; each request opens its own connection."""

    def __init__(self, url: str, token: str) -> None:
        """Store the URL and the token; nothing is sent yet.

        Raises:
            ConfigError: ``url`` is not an HTTP URL. Not retriable.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"{url!r} is not the URL of a control API; write http://HOST:PORT")
        self.url, self._parts, self._token = url, parts, token

    def get(self, path: str, **query: Any) -> Any:
        """Send a GET request; query parameters that are None are left out."""
        return self.request("GET", path, query=query)

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        timeout_s: float = TIMEOUT_S,
    ) -> Any:
        """Send a request and wait for the response.

        Args:
            path: Path below ``PREFIX``.
            body: Content that is sent as JSON.
        Returns:
            The JSON of the response; None if the response has no body.
        Raises:
            NotRunning: Nothing answers at the URL. Not retriable.
            ApiRefused: The API refused or failed; the message has the reason. Not retriable.
        """
        content = None if body is None else json.dumps(body).encode()
        headers = {"content-type": "application/json"}
        with self._answer(method, path, query, content, headers, timeout_s) as response:
            return _read(response)

    @contextmanager
    def download(self, path: str) -> Iterator[http.client.HTTPResponse]:
        """Open a response whose body is read as a stream; raises like ``request``."""
        with self._answer("GET", path, None, None, {}, COPY_TIMEOUT_S) as response:
            yield response

    def upload(
        self,
        path: str,
        parts: Iterable[bytes],
        *,
        size_bytes: int,
        content_type: str,
        query: Mapping[str, Any],
    ) -> Any:
        """Send a body as a stream; returns and raises like ``request``.

        Args:
            parts: Parts of the body; an exception from the iterable aborts the upload.
            size_bytes: Total size of the parts.
        """
        headers = {"content-type": content_type, "content-length": str(size_bytes)}
        with self._answer("POST", path, query, parts, headers, COPY_TIMEOUT_S) as response:
            return _read(response)

    @contextmanager
    def _answer(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None,
        content: Iterable[bytes] | bytes | None,
        headers: Mapping[str, str],
        timeout_s: float,
    ) -> Iterator[http.client.HTTPResponse]:
        known = {name: value for name, value in (query or {}).items() if value is not None}
        target = f"{self._parts.path.rstrip('/')}{PREFIX}{quote(path)}"
        if known:
            target += f"?{urlencode(known, doseq=True)}"
        allowed = {**headers, "authorization": f"Bearer {self._token}"}
        with closing(self._connection(timeout_s)) as connection, self._errors_in_words():
            connection.connect()
            # A refusal during sending may close the connection; the response has the reason.
            with suppress(ConnectionError, ssl.SSLEOFError):
                connection.request(method, target, content, allowed)
            response = connection.getresponse()
            if response.status >= 400:
                raise _refused(response)
            yield response

    def _connection(self, timeout_s: float) -> http.client.HTTPConnection:
        host, port = str(self._parts.hostname), self._parts.port
        if self._parts.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=timeout_s)
        return http.client.HTTPSConnection(host, port, timeout=timeout_s)

    @contextmanager
    def _errors_in_words(self) -> Iterator[None]:
        try:
            yield
        except ssl.SSLCertVerificationError as exc:
            raise NotRunning(
                f"the certificate of {self.url} cannot be trusted: {exc.verify_message}; "
                "set SSL_CERT_FILE to the certificate file of another authority"
            ) from exc
        except (OSError, http.client.HTTPException) as exc:
            raise NotRunning(
                f"the control API at {self.url} does not answer ({exc}); `bertstream up` starts it"
            ) from exc


def connected(api: str | None, state_dir: Path) -> ApiClient:
    """Return a client of the platform at ``api``, or of the one that runs here.

    Args:
        api: URL of the control API; None reads it from the environment, else from the state
            directory. The token is never an argument: other users of the machine could read it.
    Raises:
        NotRunning: No platform runs here and no URL is given. Not retriable.
        NotAuthenticated: There is no token. Not retriable.
    """
    url = api or os.environ.get(API_VARIABLE) or _url_of(state_dir)
    if not url:
        raise NotRunning(
            f"no platform runs here ({state_dir}); start one with `bertstream up`, or set --api "
            f"or {API_VARIABLE} to the URL of another one"
        )
    token = os.environ.get(TOKEN_VARIABLE) or _content(state_dir / TOKEN_FILE)
    if not token:
        raise NotAuthenticated(
            f"there is no token in {state_dir / TOKEN_FILE}; ask an admin for one and set "
            f"{TOKEN_VARIABLE} to it"
        )
    return ApiClient(url, token.strip())


def _url_of(state_dir: Path) -> str:
    try:
        return str(json.loads(_content(state_dir / STATE_FILE) or "{}").get("api") or "")
    except ValueError:
        return ""


def _content(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def _read(response: http.client.HTTPResponse) -> Any:
    content = response.read()
    return json.loads(content) if content else None


def _refused(response: http.client.HTTPResponse) -> ApiRefused:
    try:
        body = json.loads(response.read())
        message, problems = str(body["message"]), tuple(body["problems"])
    except (ValueError, KeyError, TypeError):
        message, problems = f"the server answered {response.status} {response.reason}", ()
    return ApiRefused(message, response.status, problems)
