"""Who calls, and the service that answers: what every address asks for."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from ops.access.transactions import Actor
from ops.errors import NotAuthenticated
from ops.service.service import Service

bearer = HTTPBearer(auto_error=False, description="Of `bertstream token create`.")


def service_of(request: Request) -> Service:
    """The service that the application was made with."""
    service: Service = request.app.state.service
    return service


Served = Annotated[Service, Depends(service_of)]


def actor_of(
    service: Served,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
) -> Actor:
    """Who shows the token.

    Raises:
        NotAuthenticated: There is none, or it does not count. Not retriable.
    """
    if credentials is None:
        raise NotAuthenticated(
            "this takes a token, as the header Authorization: Bearer TOKEN; the command reads it "
            "from BERTSTREAM_TOKEN or from the file token in the state directory"
        )
    return service.access.authenticate(credentials.credentials)


Authenticated = Annotated[Actor, Depends(actor_of)]
