"""Bodies too large for memory: read by a thread while they arrive, within bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from anyio import CapacityLimiter, fail_after, from_thread, to_thread
from fastapi import HTTPException, Request
from starlette.types import Receive

from ops.errors import UploadBroken

CHUNK_BYTES = 1 << 20
TAR = "application/x-tar"
# Of the threads that answer requests; more uploads wait for their turn.
AT_ONCE = 4

Result = TypeVar("Result")


class Uploads:
    """How uploads are received.

    Attributes:
        max_bytes: Of one.
    """

    def __init__(self, *, max_bytes: int = 20_000_000_000, stall_s: float = 60.0) -> None:
        """Set the bounds.

        Args:
            stall_s: An upload of which nothing comes for so long is given up.
        """
        self.max_bytes, self._stall_s = max_bytes, stall_s
        self._turns = CapacityLimiter(AT_ONCE)

    def require_allowed(self, size_bytes: int) -> None:
        """See that one may be so large.

        Raises:
            HTTPException: It may not.
        """
        if size_bytes > self.max_bytes:
            raise HTTPException(413, self.bound())

    def bound(self) -> str:
        """How large one may be, as a sentence."""
        return f"an upload has at most {self.max_bytes:,} bytes; api.max_upload_bytes says so"

    async def run(self, request: Request, work: Callable[[Body, int], Result]) -> Result:
        """Have a thread read the body.

        Args:
            work: Takes the body and its length in bytes, as told.
        Raises:
            HTTPException: It is of another type, or its length is not told.
            UploadBroken: It stalls or breaks off. Retriable.
        """
        if request.headers.get("content-type") != TAR:
            raise HTTPException(415, f"a model directory is sent as a tar archive, {TAR}")
        length = request.headers.get("content-length")
        if length is None:
            raise HTTPException(411, "an upload tells its length, as the header Content-Length")
        body = Body(request.receive, self._stall_s)
        return await to_thread.run_sync(work, body, int(length), limiter=self._turns)


def uploads_of(request: Request) -> Uploads:
    """What the application was made with."""
    uploads: Uploads = request.app.state.uploads
    return uploads


class Body:
    """A file that can be read once, by a thread beside the event loop."""

    def __init__(self, receive: Receive, stall_s: float) -> None:
        self._receive, self._stall_s = receive, stall_s
        self._part, self._ended, self._seen = memoryview(b""), False, 0

    def read(self, size: int, /) -> bytes:
        """At most so many bytes, as soon as there are any; none at the end.

        Raises:
            UploadBroken: Nothing comes any more. Retriable.
        """
        while not self._part and not self._ended:
            self._part = memoryview(from_thread.run(self._more))
        part, self._part = self._part[:size], self._part[size:]
        return bytes(part)

    async def _more(self) -> bytes:
        """Many parts at once: each time the thread waits for the event loop."""
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
            raise self._broken(f"nothing came for {self._stall_s:g} s") from exc
        if message["type"] == "http.disconnect":
            raise self._broken("the connection broke off")
        return dict(message)

    def _broken(self, why: str) -> UploadBroken:
        return UploadBroken(f"{why} after {self._seen:,} bytes; nothing is kept, send it again")
