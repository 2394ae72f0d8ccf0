"""Every error of ``stream``.

StreamError
|-- BrokerUnreachable         no broker answered in time (retriable)
|-- BrokerRefused             the broker refuses login, TLS or a permission
|-- TopicMissing              a topic of the pipeline does not exist
|-- TopicUnfit                a topic's settings refuse what a pipeline writes (retriable)
|-- CommitFailed              a transaction or offset commit did not happen (retriable)
|   `-- OutputRefused         a broker refuses a record because of its content (retriable)
|-- Fenced                    a successor has taken this consumer's place
|-- ModelUnavailable          no replica accepted the call (retriable)
|-- CallLost                  a replica accepted the call and never answered (retriable)
|-- CallFailed                a replica answered with an error for the whole batch
`-- SystemFault               the pipeline stops: continuing would drain the topic
                              into the dead letters
"""

from __future__ import annotations

from typing import ClassVar


class StreamError(Exception):
    """Root of the errors of ``stream``."""

    retriable: ClassVar[bool] = False


class BrokerUnreachable(StreamError):
    """No broker answered in time."""

    retriable: ClassVar[bool] = True


class BrokerRefused(StreamError):
    """The broker refuses the login, the TLS connection or a permission."""


class TopicMissing(StreamError):
    """A topic that the pipeline needs does not exist."""


class TopicUnfit(StreamError):
    """A topic's settings make brokers refuse what a pipeline writes, until they are changed."""

    retriable: ClassVar[bool] = True


class CommitFailed(StreamError):
    """A transaction or an offset commit did not happen; no part of it is visible."""

    retriable: ClassVar[bool] = True


class OutputRefused(CommitFailed):
    """A broker refuses a record because of its content: the topic's settings may have changed."""


class Fenced(StreamError):
    """A successor has taken this consumer's place in the group or its transactional id.

    Continuing would fence the successor in turn, so the pipeline stops and commits nothing. A
    producer gets the same error when the broker has ended its transaction after a timeout.
    """


class ModelUnavailable(StreamError):
    """No replica accepted the call; its records are not at fault."""

    retriable: ClassVar[bool] = True


class CallLost(StreamError):
    """A replica accepted the call and died or timed out, perhaps because of one of its records."""

    retriable: ClassVar[bool] = True


class CallFailed(StreamError):
    """A replica answered with an error for the whole micro-batch."""


class SystemFault(StreamError):
    """The fault is not in one record: the pipeline stops with an error and keeps its offsets."""
