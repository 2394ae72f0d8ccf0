"""Fraction of a model's records that a version must be able to carry; pure.

It may exceed the present traffic: a version that is about to answer more, or that may have to take
over everything at once, needs its replicas in advance.
"""

from __future__ import annotations

from ops.releases.releases import Release
from ops.releases.state_machine import STEPS, Plan, Position, ReleaseState, candidate_weight
from stream.schema import ControlRecord


def share_to_carry(label: str, route: ControlRecord, release: Release | None) -> float:
    """Return the fraction for one version, 0 to 1.

    Args:
        label: Label of the version in the routing table.
        route: Route in force of its model.
        release: Open release of the model; None if there is none.
    """
    present = _share_of(label, route)
    if release is None:
        return present
    if label == release.previous_label:
        return 1.0  # a rollback must not wait
    if label == release.label:
        return max(present, _coming(release.position, release.plan))
    return present


def _share_of(label: str, route: ControlRecord) -> float:
    """Return the present fraction: by weight, plus shadowed records of other versions."""
    own = route.versions[label].weight if label in route.versions else 0.0
    return own + (1 - own) * route.shadow_share if route.shadow == label else own


def _coming(position: Position, plan: Plan) -> float:
    """Return the fraction that the next step of a release gives its version."""
    if position.state is ReleaseState.PAUSED and position.resume is not None:
        position = Position(position.resume, position.step)
    if position.state is ReleaseState.LOADING:
        following = plan.first()
    elif position.state in STEPS:
        following = plan.following(position)
    else:
        return 0.0
    return 1.0 if following.state is ReleaseState.SHADOW else candidate_weight(following, plan)
