"""Every error of ``stream``.

StreamError
|-- BrokerUnreachable         no broker answered in time (retriable)
|-- BrokerRefused             the broker answers, and says no: login, TLS, permission
|-- TopicMissing              a topic of the pipeline does not exist
|-- TopicUnfit                a topic's settings refuse what a pipeline writes (retriable)
|-- CommitFailed              a transaction or offset commit did not happen (retriable)
|   `-- OutputRefused         a broker refuses a record for what it is (retriable)
|-- Fenced                    a successor has taken this consumer's place
|-- ModelUnavailable          no replica took the call (retriable)
|-- CallLost                  a replica took the call and never answered (retriable)
|-- CallFailed                a replica answered with an error for the whole batch
`-- SystemFault               the pipeline stops: going on would drain the topic
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
    """The broker answers and says no: login, TLS or permission."""


class TopicMissing(StreamError):
    """A topic that the pipeline needs does not exist."""


class TopicUnfit(StreamError):
    """A topic's settings have brokers refuse what a pipeline writes, until they are changed."""

    retriable: ClassVar[bool] = True


class CommitFailed(StreamError):
    """A transaction or an offset commit did not happen; nothing of it is visible."""

    retriable: ClassVar[bool] = True


class OutputRefused(CommitFailed):
    """A broker refuses a record for what it is: the topic's settings may have changed."""


class Fenced(StreamError):
    """A successor has taken this consumer's place in the group or its transactional id.

    To go on would throw the successor out in turn: the pipeline stops and commits nothing. It is
    the same to a producer when the broker has ended its transaction because that took too long.
    """


class ModelUnavailable(StreamError):
    """No replica took the call; the records in it are not at fault."""

    retriable: ClassVar[bool] = True


class CallLost(StreamError):
    """A replica took the call and died, or ran out of time: perhaps through one of its records."""

    retriable: ClassVar[bool] = True


class CallFailed(StreamError):
    """A replica answered with an error for the whole micro-batch."""


class SystemFault(StreamError):
    """Not one record's fault: the pipeline stops loudly and keeps its place."""
