"""Choice of the version that answers a record. Pure, and the same in every process.

Weighted rendezvous hashing: each version hashes the key to an exponential random number with
the version's weight as rate, and the smallest wins. A version wins in proportion to its weight,
and raising a weight only moves keys to that version.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from math import log


def route(key: bytes | None, fallback: bytes, weights: Sequence[tuple[str, float]]) -> str:
    """Choose the version that answers a record.

    Args:
        key: The record's key: equal keys get the same version until the weights change.
        fallback: Used where the record has no key: topic, partition and offset.
        weights: Versions and weights, which need not add up to 1; 0 gets no records.
    Returns:
        A version with a weight above 0.
    Raises:
        ValueError: No version has a weight above 0. Not retriable.
    """
    versions = [(version, weight) for version, weight in weights if weight > 0]
    if not versions:
        raise ValueError(f"no version to route to in {list(weights)}; give one a weight above 0")
    if len(versions) == 1:
        return versions[0][0]
    drawn = fallback if key is None else key
    return min((_arrival(drawn, version) / weight, version) for version, weight in versions)[1]


def _arrival(key: bytes, version: str) -> float:
    digest = blake2b(b"%s\0%s" % (version.encode(), key), digest_size=8).digest()
    # 52 bits plus a half: strictly between 0 and 1 in a double, so that the logarithm is finite.
    return -log(((int.from_bytes(digest, "big") >> 12) + 0.5) * 2.0**-52)
