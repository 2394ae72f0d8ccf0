"""The policy of one model: how its versions are released. Frozen; what its YAML file holds.

How the file is read and what is refused of it: ``ops.policy.file``.
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
    """YAML's ``yes`` is no 1, and a number in quotes no number."""
    if isinstance(value, bool | str):
        raise ValueError("it must be a number")
    return value


def _weight(value: float) -> float:
    if not 0 < value < 1:
        raise ValueError(
            "it must lie between 0 and 1 (at 1 no other version is left to compare with)"
        )
    return value


RecordCount = Annotated[int, BeforeValidator(_number), Field(ge=0, le=1_000_000_000)]
FiniteNumber = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
Share = Annotated[FiniteNumber, Field(gt=0, lt=1)]
Weight = Annotated[FiniteNumber, AfterValidator(_weight)]
PolicyText = Annotated[str, Field(min_length=1, max_length=200)]


class Cadence(Settings):
    """How often a version may go live.

    Attributes:
        min_interval: Between the last version's going live and the next release's start.
    """

    min_interval: Duration = timedelta(0)


class MetricGate(Settings):
    """What a figure on the version's card must be. At least one of the three bounds is needed.

    Attributes:
        metric: Its name on the card, such as ``accuracy``.
        slice: A part of the data: the figure's name on the card is then ``metric/slice``.
        direction: Which way is better; the card must say the same.
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
        """Of the figure on the card."""
        return self.metric if self.slice is None else f"{self.metric}/{self.slice}"


class GoldenGate(Settings):
    """How the golden texts must be answered.

    Attributes:
        min_agreement: Share of them that must be answered as expected; None asks for none.
        not_worse_by: How much smaller than the live version's that share may be.
        exact: Whether every text marked ``exact`` must be answered as expected.
        min_cosine: From which cosine on an embedding counts as the expected one. The default
            lets pass what precision and batching change, and no other vector space.
    """

    min_agreement: Annotated[FiniteNumber, Field(gt=0, le=1)] | None = None
    not_worse_by: Annotated[FiniteNumber, Field(ge=0, lt=1)] | None = None
    exact: StrictBool = True
    min_cosine: Annotated[FiniteNumber, Field(gt=0, le=1)] = 0.99


class ApprovalRule(Settings):
    """Who must agree; never the author of the version.

    Attributes:
        team: Whose members count.
        count: How many of them, each of whom counts for one team only.
    """

    team: PolicyText
    count: Annotated[RecordCount, Field(ge=1)] = 1


class ShadowStep(Settings):
    """The new version answers live records too, and nobody sees its answers.

    Attributes:
        records: To be compared. Here a version can be judged thoroughly at nobody's risk: the
            default finds errors doubled from 1 % in 99 of 100 releases.
        timeout: After which too few are inconclusive.
    """

    records: Annotated[RecordCount, Field(ge=1)] = 12_000
    timeout: LastingDuration = timedelta(hours=6)


class CanaryStep(Settings):
    """The new version answers a share of the keys.

    Attributes:
        weight: That share.
        records: That the new version must have answered to be judged.
        timeout: After which too few are inconclusive.
    """

    weight: Weight
    records: RecordCount = 500
    timeout: LastingDuration = timedelta(hours=6)


class Bake(Settings):
    """The new version answers all records, and the old one stays ready.

    Attributes:
        duration: At least.
        records: That the new version must have answered to be judged.
        timeout: After which too few are inconclusive.
    """

    duration: Duration = timedelta(minutes=10)
    records: RecordCount = 1000
    timeout: LastingDuration = timedelta(hours=1)


class Rollout(Settings):
    """Steps on the way to live; ``null`` leaves one out.

    Attributes:
        canary: Weights must rise; empty leaves them out.
    """

    shadow: ShadowStep | None = ShadowStep()
    canary: tuple[CanaryStep, ...] = (CanaryStep(weight=0.05), CanaryStep(weight=0.25))
    bake: Bake | None = Bake()


class ErrorAnalysis(Settings):
    """Failures that the version is to blame for.

    Attributes:
        alpha: Share of equal versions that the sequential test against the baseline may fail
            in a whole release; each step gets an equal part.
        max_rate: Share of records above which it fails whatever the baseline does.
    """

    alpha: Share = 0.05
    max_rate: Share | None = 0.05


class LatencyAnalysis(Settings):
    """How long micro-batches take to compute.

    Attributes:
        max_ratio: Of the version's p99 to the live version's.
        max_p99_ms: Whatever the live version's is.
    """

    max_ratio: Annotated[FiniteNumber, Field(gt=1)] | None = 1.5
    max_p99_ms: Annotated[FiniteNumber, Field(gt=0)] | None = None


class LabelAnalysis(Settings):
    """How often each label is answered.

    Attributes:
        max_distance: Jensen-Shannon distance from the baseline's, 0 to 1.
    """

    max_distance: Share = 0.15


class AgreementAnalysis(Settings):
    """How often both versions answer the same, in shadow.

    Attributes:
        min: Lower Wilson bound of the share.
    """

    min: Share = 0.8


class Analysis(Settings):
    """What fails a version on live records; ``null`` switches a check off."""

    errors: ErrorAnalysis | None = ErrorAnalysis()
    latency: LatencyAnalysis | None = LatencyAnalysis()
    labels: LabelAnalysis | None = LabelAnalysis()
    agreement: AgreementAnalysis | None = AgreementAnalysis()


class RetentionPolicy(Settings):
    """Which versions are kept.

    Attributes:
        versions: The newest so many; the live one and the one to go back to besides.
    """

    versions: Annotated[RecordCount, Field(ge=2)] = 10


class CostLimit(Settings):
    """What a model may cost.

    Attributes:
        ceiling_per_day: In the price table's currency; above it replicas are capped. None: no end.
        warn_at: Share of the ceiling.
    """

    ceiling_per_day: Annotated[FiniteNumber, Field(gt=0)] | None = None
    warn_at: Annotated[FiniteNumber, Field(gt=0, le=1)] = 0.8


class Policy(Settings):
    """How versions of one model are released.

    Attributes:
        model: Its name; all else has a default.
        cadence: How often.
        windows: When.
        outside_windows: A release that is started outside waits for the next window, or is
            refused.
        gates: Figures of the version's card.
        golden: Known texts.
        labels: ``same`` as the live version's, or they ``may-change``.
        approvals: By whom.
        rollout: In which steps.
        analysis: What fails it on the way.
        retention: How many versions are kept.
        cost: What it may cost.
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
        """JSON, one for one meaning: every default written out, keys in order.

        ``Policy.model_validate_json`` gives the policy back.
        """
        return orjson.dumps(self.model_dump(mode="json"), option=orjson.OPT_SORT_KEYS)

    def digest(self) -> str:
        """Sha256 that names what the policy says, however it is laid out; 64 hex digits."""
        return hashlib.sha256(self.canonical()).hexdigest()
