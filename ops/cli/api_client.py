"""The command line's side of the control API.

On the standard library's client: whatever a command imports, its user waits for.
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
    """Requests of one user; each opens its own connection."""

    def __init__(self, url: str, token: str) -> None:
        """Describe it; nothing is sent yet.

        Raises:
            ConfigError: The URL is none of HTTP. Not retriable.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"{url!r} is no address of a control API; write http://HOST:PORT")
        self.url, self._parts, self._token = url, parts, token

    def get(self, path: str, **query: Any) -> Any:
        """Ask; parameters that are None are left out."""
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
        """Send and wait for the answer.

        Args:
            path: Below ``PREFIX``.
            body: JSON.
        Returns:
            The JSON of the answer; None where it has none.
        Raises:
            NotRunning: Nothing answers there. Not retriable.
            ApiRefused: It refused or failed, and says why. Not retriable.
        """
        content = None if body is None else json.dumps(body).encode()
        headers = {"content-type": "application/json"}
        with self._answer(method, path, query, content, headers, timeout_s) as response:
            return _read(response)

    @contextmanager
    def download(self, path: str) -> Iterator[http.client.HTTPResponse]:
        """An answer whose body is read as a stream; raises as ``request``."""
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
        """Send a body as a stream; answers and raises as ``request``.

        Args:
            parts: Of the body; what they raise breaks the upload off.
            size_bytes: Of all of them.
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
        with closing(self._connection(timeout_s)) as connection, self._told_plainly():
            connection.connect()
            # Who is refused in the middle of sending is told why.
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
    def _told_plainly(self) -> Iterator[None]:
        try:
            yield
        except ssl.SSLCertVerificationError as exc:
            raise NotRunning(
                f"the certificate of {self.url} cannot be trusted: {exc.verify_message}; "
                "SSL_CERT_FILE names the file of another authority"
            ) from exc
        except (OSError, http.client.HTTPException) as exc:
            raise NotRunning(
                f"the control API at {self.url} does not answer ({exc}); `bertstream up` starts it"
            ) from exc


def connected(api: str | None, state_dir: Path) -> ApiClient:
    """A client of the platform that runs here, or of the one that is named.

    Args:
        api: Its URL; None: of the environment, else of the state directory. So with the token,
            which is never an argument, where other users of the machine could read it.
    Raises:
        NotRunning: No platform runs here and none is named. Not retriable.
        NotAuthenticated: There is no token. Not retriable.
    """
    url = api or os.environ.get(API_VARIABLE) or _url_of(state_dir)
    if not url:
        raise NotRunning(
            f"no platform runs here ({state_dir}); `bertstream up` starts one, and --api or "
            f"{API_VARIABLE} names one elsewhere"
        )
    token = os.environ.get(TOKEN_VARIABLE) or _content(state_dir / TOKEN_FILE)
    if not token:
        raise NotAuthenticated(
            f"there is no token in {state_dir / TOKEN_FILE}; ask an admin for one and put it into "
            f"{TOKEN_VARIABLE}"
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
