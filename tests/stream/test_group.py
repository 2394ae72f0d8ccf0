"""Whose a consumer group is."""

from __future__ import annotations

import pytest

from stream.group import Group, Member, foreign, own_client

CLASSIC = Group("consumer", "classic", (), is_in_use=True)


def ours(instance: str) -> Member:
    return Member(instance, own_client(instance), "h")


@pytest.mark.parametrize(
    ("group", "why"),
    [
        (Group("", "classic", (), is_in_use=False), None),
        (CLASSIC._replace(is_in_use=False), None),
        (CLASSIC._replace(members=(ours("reviews-0"), ours("reviews-12"))), None),
        (CLASSIC._replace(members=(ours("reviews-0"), Member(None, "app", "i"))), "app at i"),
        (CLASSIC._replace(members=(Member("reviews-0", "app", "h"),)), "reviews-0 at h"),
        (CLASSIC._replace(members=(ours("reviews-eu-0"),)), "reviews-eu-0 at h"),
        (CLASSIC._replace(protocol="connect"), "members that speak connect"),
        (CLASSIC._replace(kind="consumer"), "members of the consumer protocol"),
        (CLASSIC._replace(protocol="share", kind="share"), "members of the share protocol"),
    ],
)
def test_only_consumers_of_the_pipeline_are_its_own(group: Group, why: str | None) -> None:
    assert foreign("reviews", group) == why
