"""Shapes of requests and responses that several endpoints share."""

from __future__ import annotations

from typing import Annotated, Generic, TypeVar

from fastapi import Path, Query
from pydantic import BaseModel, ConfigDict, Field

from ops.access.people import NAME_PATTERN as PRINCIPAL_PATTERN
from ops.problems import Problem
from serve.settings import NAME_PATTERN

MAX_PAGE = 500
MAX_NUMBER = 999_999_999

Listed = TypeVar("Listed")
ModelName = Annotated[str, Path(pattern=NAME_PATTERN, description="Model name.")]
PrincipalName = Annotated[
    str, Path(pattern=PRINCIPAL_PATTERN, description="Name of a person, team or department.")
]
OfModel = Annotated[str | None, Query(pattern=NAME_PATTERN, description="Only this model.")]
# Text without the one character that databases and file systems do not accept.
Text = Annotated[str, Field(pattern=r"^[^\x00]*$")]
Holder = Annotated[str, Field(pattern=PRINCIPAL_PATTERN)]
Number = Annotated[int, Path(ge=1, le=MAX_NUMBER, description="ID from the list.")]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="Maximum items of a page.")]
AfterName = Annotated[str, Query(pattern=r"^[!-~]{0,100}$", description="Names after this one.")]
BeforeId = Annotated[int | None, Query(ge=1, le=MAX_NUMBER, description="IDs below this one.")]
AfterId = Annotated[int, Query(ge=0, le=MAX_NUMBER, description="IDs above this one.")]


# Messages for texts that do not match a pattern.
SENTENCES = {
    NAME_PATTERN: "a model name has at most 63 lower case letters, digits and hyphens, and begins "
    "with a letter or digit",
    PRINCIPAL_PATTERN: "a name has at most 63 lower case letters, digits and . _ @ + -, and "
    "begins with a letter or digit",
}


class Shape(BaseModel):
    """Base of all request and response bodies; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", from_attributes=True)


class Page(Shape, Generic[Listed]):
    """Part of a list.

    Attributes:
        next: Value that requests the next page; None if this is the last page.
    """

    items: list[Listed]
    next: str | None = None


class ErrorShape(Shape):
    """Body of every error.

    Attributes:
        error: Kind of the error.
        message: What is wrong and what to do.
        problems: List of mistakes, if there can be several.
    """

    error: str
    message: str
    problems: list[Problem] = []


def page_of(items: list[Listed], limit: int, key: str) -> Page[Listed]:
    """Return a page; after a full one, the next page may start at its last item's ``key``."""
    full = len(items) == limit
    return Page(items=items, next=str(getattr(items[-1], key)) if full else None)
