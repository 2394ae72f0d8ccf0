"""The policy of one model: how its versions are released. Frozen; the content of its YAML file.

``ops.policy.file`` reads the file and reports its mistakes.
"""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, BeforeValidator, Field, StrictBool

from ops.config.duration import Duration, LastingDuration
from ops.policy.windows import Windows
from serve.settings import NAME_PATTERN, Settings


def _number(value: Any) -> Any:
    """Reject YAML's ``yes``, which is not 1, and quoted numbers."""
    if isinstance(value, bool | str):
        raise ValueError("it must be a number")
    return value


def _weight(value: float) -> float:
    if not 0 < value < 1:
        raise ValueError(
            "it must be between 0 and 1 (at 1 no other version is left to compare with)"
        )
    return value


RecordCount = Annotated[int, BeforeValidator(_number), Field(ge=0, le=1_000_000_000)]
FiniteNumber = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
Share = Annotated[FiniteNumber, Field(gt=0, lt=1)]
Weight = Annotated[FiniteNumber, AfterValidator(_weight)]
PolicyText = Annotated[str, Field(min_length=1, max_length=200)]


class Cadence(Settings):
    """Limit for how often a version may go live.

    Attributes:
        min_interval: Time between a version going live and the start of the next release.
    """

    min_interval: Duration = timedelta(0)


class MetricGate(Settings):
    """Bounds for a metric on the version's card. At least one of the three is required.

    Attributes:
        metric: Name of the metric on the card, such as ``accuracy``.
        slice: Part of the data: the name on the card is then ``metric/slice``.
        direction: Which direction is better; the card must agree.
        at_least: Lowest value allowed, where higher is better.
        at_most: Highest value allowed, where lower is better.
        not_worse_by: How much worse than the live version's it may be, in the metric's unit.
    """

    metric: PolicyText
    slice: PolicyText | None = None
    direction: Literal["higher", "lower"]
    at_least: FiniteNumber | None = None
    at_most: FiniteNumber | None = None
    not_worse_by: Annotated[FiniteNumber, Field(ge=0)] | None = None

    @property
    def name(self) -> str:
        """Return the name of the metric on the card."""
        return self.metric if self.slice is None else f"{self.metric}/{self.slice}"


class GoldenGate(Settings):
    """Requirements for the answers to golden texts.

    Attributes:
        min_agreement: Fraction that must be answered as expected; None for no requirement.
        not_worse_by: How much smaller than the live version's that fraction may be.
        exact: Whether every text marked ``exact`` must be answered as expected.
        min_cosine: Lowest cosine at which an embedding counts as the expected one. The default
            tolerates effects of precision and batching, but not another vector space.
    """

    min_agreement: Annotated[FiniteNumber, Field(gt=0, le=1)] | None = None
    not_worse_by: Annotated[FiniteNumber, Field(ge=0, lt=1)] | None = None
    exact: StrictBool = True
    min_cosine: Annotated[FiniteNumber, Field(gt=0, le=1)] = 0.99


class ApprovalRule(Settings):
    """Approvals required from a team; the author of the version never counts.

    Attributes:
        team: Team whose members count.
        count: Number of members required, each of whom counts for one team only.
    """

    team: PolicyText
    count: Annotated[RecordCount, Field(ge=1)] = 1


class ShadowStep(Settings):
    """The new version also answers live records, but its answers are discarded.

    Attributes:
        records: Number of records to compare. This step carries no risk and can be thorough:
            the default finds errors doubled from 1% in 99 of 100 releases.
        timeout: Time after which too few records are inconclusive.
    """

    records: Annotated[RecordCount, Field(ge=1)] = 12_000
    timeout: LastingDuration = timedelta(hours=6)


class CanaryStep(Settings):
    """The new version answers a fraction of the keys.

    Attributes:
        weight: Fraction of the keys.
        records: Number of records that the new version must have answered to be judged.
        timeout: Time after which too few records are inconclusive.
    """

    weight: Weight
    records: RecordCount = 500
    timeout: LastingDuration = timedelta(hours=6)


class Bake(Settings):
    """The new version answers all records, and the old one stays ready.

    Attributes:
        duration: Minimum duration.
        records: Number of records that the new version must have answered to be judged.
        timeout: Time after which too few records are inconclusive.
    """

    duration: Duration = timedelta(minutes=10)
    records: RecordCount = 1000
    timeout: LastingDuration = timedelta(hours=1)


class Rollout(Settings):
    """Steps on the way to live; ``null`` omits one.

    Attributes:
        canary: Steps with rising weights; empty omits them.
    """

    shadow: ShadowStep | None = ShadowStep()
    canary: tuple[CanaryStep, ...] = (CanaryStep(weight=0.05), CanaryStep(weight=0.25))
    bake: Bake | None = Bake()


class ErrorAnalysis(Settings):
    """Check of failures that the version is to blame for.

    Attributes:
        alpha: Fraction of equal versions that the sequential test against the baseline may fail
            in a whole release; each step gets an equal part.
        max_rate: Fraction of records above which it fails whatever the baseline does.
    """

    alpha: Share = 0.05
    max_rate: Share | None = 0.05


class LatencyAnalysis(Settings):
    """Check of the time that micro-batches take to compute.

    Attributes:
        max_ratio: Maximum ratio of the version's p99 to the live version's.
        max_p99_ms: Maximum p99, whatever the live version's is.
    """

    max_ratio: Annotated[FiniteNumber, Field(gt=1)] | None = 1.5
    max_p99_ms: Annotated[FiniteNumber, Field(gt=0)] | None = None


class LabelAnalysis(Settings):
    """Check of how often each label is answered.

    Attributes:
        max_distance: Maximum Jensen-Shannon distance from the baseline's labels, 0 to 1.
    """

    max_distance: Share = 0.15


class AgreementAnalysis(Settings):
    """Check of how often both versions give the same answer in shadow.

    Attributes:
        min: Minimum for the lower Wilson bound of that fraction.
    """

    min: Share = 0.8


class Analysis(Settings):
    """Checks that can fail a version on live records; ``null`` switches one off."""

    errors: ErrorAnalysis | None = ErrorAnalysis()
    latency: LatencyAnalysis | None = LatencyAnalysis()
    labels: LabelAnalysis | None = LabelAnalysis()
    agreement: AgreementAnalysis | None = AgreementAnalysis()


class RetentionPolicy(Settings):
    """Number of versions that are kept.

    Attributes:
        versions: How many of the newest; the live one and the rollback target are always kept.
    """

    versions: Annotated[RecordCount, Field(ge=2)] = 10


class CostLimit(Settings):
    """Limit for the cost of a model.

    Attributes:
        ceiling_per_day: In the price table's currency; replicas are capped above it. None: no cap.
        warn_at: Fraction of the ceiling at which to warn.
    """

    ceiling_per_day: Annotated[FiniteNumber, Field(gt=0)] | None = None
    warn_at: Annotated[FiniteNumber, Field(gt=0, le=1)] = 0.8


class Policy(Settings):
    """Rules for the releases of one model.

    Attributes:
        model: Name of the model; everything else has a default.
        cadence: How often versions may go live.
        windows: When releases may start.
        outside_windows: Whether a release that is started outside waits for the next window or
            is refused.
        gates: Bounds for metrics on the version's card.
        golden: Requirements for golden texts.
        labels: Whether labels must be the ``same`` as the live version's or ``may-change``.
        approvals: Required approvals.
        rollout: Steps of a release.
        analysis: Checks that can fail a release.
        retention: Number of versions that are kept.
        cost: Limit for the cost.
    """

    model: str = Field(pattern=NAME_PATTERN)
    cadence: Cadence = Cadence()
    windows: Windows = Windows()
    outside_windows: Literal["wait", "refuse"] = "wait"
    gates: tuple[MetricGate, ...] = ()
    golden: GoldenGate = GoldenGate()
    labels: Literal["same", "may-change"] = "same"
    approvals: tuple[ApprovalRule, ...] = ()
    rollout: Rollout = Rollout()
    analysis: Analysis = Analysis()
    retention: RetentionPolicy = RetentionPolicy()
    cost: CostLimit = CostLimit()

    def canonical(self) -> bytes:
        """Return canonical JSON, with every default written out and keys in order.

        ``Policy.model_validate_json`` restores the policy.
        """
        return orjson.dumps(self.model_dump(mode="json"), option=orjson.OPT_SORT_KEYS)

    def digest(self) -> str:
        """Return the sha256 of the policy's content, whatever its layout; 64 hex digits."""
        return hashlib.sha256(self.canonical()).hexdigest()
