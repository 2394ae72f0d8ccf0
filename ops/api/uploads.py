"""Uploads that are too large for memory: a thread reads them while they arrive, within limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from anyio import CapacityLimiter, fail_after, from_thread, to_thread
from fastapi import HTTPException, Request
from starlette.types import Receive

from ops.errors import UploadBroken

CHUNK_BYTES = 1 << 20
TAR = "application/x-tar"
# Threads for uploads; further uploads wait until one is free.
AT_ONCE = 4

Result = TypeVar("Result")


class Uploads:
    """Receives uploads within limits.

    Attributes:
        max_bytes: Maximum size of one upload.
    """

    def __init__(self, *, max_bytes: int = 20_000_000_000, stall_s: float = 60.0) -> None:
        """Set the limits.

        Args:
            stall_s: Seconds without data after which an upload is aborted.
        """
        self.max_bytes, self._stall_s = max_bytes, stall_s
        self._limiter = CapacityLimiter(AT_ONCE)

    def require_allowed(self, size_bytes: int) -> None:
        """Refuse an upload that is too large.

        Raises:
            HTTPException: ``size_bytes`` is above the limit.
        """
        if size_bytes > self.max_bytes:
            raise HTTPException(413, self.bound())

    def bound(self) -> str:
        """Return the size limit as a sentence."""
        return f"an upload has at most {self.max_bytes:,} bytes; api.max_upload_bytes sets this"

    async def run(self, request: Request, work: Callable[[Body, int], Result]) -> Result:
        """Read the body in a thread.

        Args:
            work: Function of the body and of its declared length in bytes.
        Raises:
            HTTPException: The body has another type, or its length is not declared.
            UploadBroken: The upload stalls or breaks off. Retriable.
        """
        if request.headers.get("content-type") != TAR:
            raise HTTPException(415, f"send a model directory as a tar archive, {TAR}")
        length = request.headers.get("content-length")
        if length is None:
            raise HTTPException(411, "an upload requires its length in the header Content-Length")
        body = Body(request.receive, self._stall_s)
        return await to_thread.run_sync(work, body, int(length), limiter=self._limiter)


def uploads_of(request: Request) -> Uploads:
    """Return the limits that the application was created with."""
    uploads: Uploads = request.app.state.uploads
    return uploads


class Body:
    """A request body as a file that a thread outside the event loop can read once."""

    def __init__(self, receive: Receive, stall_s: float) -> None:
        self._receive, self._stall_s = receive, stall_s
        self._part, self._ended, self._seen = memoryview(b""), False, 0

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes as soon as there are any; none at the end.

        Raises:
            UploadBroken: No more data arrives. Retriable.
        """
        while not self._part and not self._ended:
            self._part = memoryview(from_thread.run(self._more))
        part, self._part = self._part[:size], self._part[size:]
        return bytes(part)

    async def _more(self) -> bytes:
        """Collect many parts per call, because the thread waits for the event loop in each call."""
        parts, size = [], 0
        while size < CHUNK_BYTES and not self._ended:
            message = await self._next()
            part = message.get("body", b"")
            parts.append(part)
            size += len(part)
            self._seen += len(part)
            self._ended = not message.get("more_body", False)
        return b"".join(parts)

    async def _next(self) -> dict[str, bytes]:
        try:
            with fail_after(self._stall_s):
                message = await self._receive()
        except TimeoutError as exc:
            raise self._broken(f"no data for {self._stall_s:g} s") from exc
        if message["type"] == "http.disconnect":
            raise self._broken("the connection broke off")
        return dict(message)

    def _broken(self, why: str) -> UploadBroken:
        return UploadBroken(f"{why} after {self._seen:,} bytes; nothing is kept, send it again")
