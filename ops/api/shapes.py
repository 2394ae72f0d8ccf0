"""Shapes that several addresses take and give."""

from __future__ import annotations

from typing import Annotated, Generic, TypeVar

from fastapi import Path, Query
from pydantic import BaseModel, ConfigDict, Field

from ops.access.people import NAME_PATTERN as PRINCIPAL_PATTERN
from ops.problems import Problem
from serve.settings import NAME_PATTERN

MAX_PAGE = 500
MAX_NUMBER = 999_999_999

Item = TypeVar("Item")
ModelName = Annotated[str, Path(pattern=NAME_PATTERN, description="Of the model.")]
PrincipalName = Annotated[
    str, Path(pattern=PRINCIPAL_PATTERN, description="Of a person, team or department.")
]
OfModel = Annotated[str | None, Query(pattern=NAME_PATTERN, description="Of this model alone.")]
# Text without the one character that databases and file systems do not take.
Text = Annotated[str, Field(pattern=r"^[^\x00]*$")]
Holder = Annotated[str, Field(pattern=PRINCIPAL_PATTERN)]
Number = Annotated[int, Path(ge=1, le=MAX_NUMBER, description="As the lists tell it.")]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="Items of a page, at most.")]
AfterName = Annotated[str, Query(pattern=r"^[!-~]{0,100}$", description="Names behind this one.")]
BeforeId = Annotated[int | None, Query(ge=1, le=MAX_NUMBER, description="Numbers below this one.")]
AfterId = Annotated[int, Query(ge=0, le=MAX_NUMBER, description="Numbers above this one.")]


# What to say where a text does not fit.
SENTENCES = {
    NAME_PATTERN: "a model is named with lower case letters, digits and hyphens, 63 at most, a "
    "letter or digit first",
    PRINCIPAL_PATTERN: "people are named with lower case letters, digits and . _ @ + -, 63 at "
    "most, a letter or digit first",
}


class Shape(BaseModel):
    """What is sent or answered; another key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", from_attributes=True)


class Page(Shape, Generic[Item]):
    """Part of a list.

    Attributes:
        next: What to ask for behind this page; None where it is the last.
    """

    items: list[Item]
    next: str | None = None


class ErrorShape(Shape):
    """Body of every error.

    Attributes:
        error: Its kind.
        message: What is wrong and what to do.
        problems: Each mistake, where several were found.
    """

    error: str
    message: str
    problems: list[Problem] = []


def page_of(items: list[Item], limit: int, key: str) -> Page[Item]:
    """A page; a full one may have another behind it, from its last item's ``key`` on."""
    full = len(items) == limit
    return Page(items=items, next=str(getattr(items[-1], key)) if full else None)
