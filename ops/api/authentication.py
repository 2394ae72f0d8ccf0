"""Dependencies of every endpoint: the authenticated caller and the service."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from ops.access.transactions import Actor
from ops.errors import NotAuthenticated
from ops.service.service import Service

bearer = HTTPBearer(auto_error=False, description="From `bertstream token create`.")


def service_of(request: Request) -> Service:
    """Return the service that the application was created with."""
    service: Service = request.app.state.service
    return service


Served = Annotated[Service, Depends(service_of)]


def actor_of(
    service: Served,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
) -> Actor:
    """Return the actor whose token was sent.

    Raises:
        NotAuthenticated: The token is missing or not valid. Not retriable.
    """
    if credentials is None:
        raise NotAuthenticated(
            "this requires a token in the header Authorization: Bearer TOKEN; the command reads it "
            "from BERTSTREAM_TOKEN or from the file token in the state directory"
        )
    return service.access.authenticate(credentials.credentials)


Authenticated = Annotated[Actor, Depends(actor_of)]
