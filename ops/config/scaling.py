"""Settings of how far and how fast replicas and consumers follow the backlog."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from pydantic import Field, model_validator

from serve.settings import Settings


class ModelScaling(Settings):
    """Scaling settings that differ for one model; None inherits the general setting.

    Attributes:
        min_replicas, max_replicas, target_drain_s, up_delay_s, down_delay_s: As in
            ``ScalingSettings``.
    """

    min_replicas: int | None = Field(default=None, ge=1)
    max_replicas: int | None = Field(default=None, ge=1, le=10_000)
    target_drain_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    up_delay_s: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    down_delay_s: float | None = Field(default=None, ge=0, allow_inf_nan=False)


class ScalingSettings(Settings):
    """Limits and pace at which replicas or consumers follow the backlog.

    Attributes:
        min_replicas: Minimum, which also runs when nothing arrives.
        max_replicas: Maximum, which bounds what one version may cost.
        target_drain_s: A backlog must be cleared this long after it began. A shorter time takes
            more replicas for every peak, and cannot be met if starting them takes most of it: with
            defaults a tenfold increase of the load is cleared in 20 s if they start in 5 s, in 60 s
            if they start in 20 s, and otherwise about 5 s after twice their start time.
        utilisation: Fraction of its measured rate that a replica is planned with; the rest is
            reserve.
        dead_band: Fraction by which the need must differ from the current size to change it.
        up_delay_s: How long a need for more must persist. A need for at least twice as many,
            under a backlog, takes effect at once.
        down_delay_s: How long a need for fewer must persist.
        max_step_up: Largest factor of growth in one step; the next step follows with the next
            decision, and one more replica is always possible.
        stale_after_s: Readings older than this are ignored.
        smoothing_s: Half-life of the smoothed rates.
        models: Settings that differ for single models, by name; for versions and pipelines.
    """

    min_replicas: int = Field(default=1, ge=1)
    max_replicas: int = Field(default=4, ge=1, le=10_000)
    target_drain_s: float = Field(default=60.0, gt=0, allow_inf_nan=False)
    utilisation: float = Field(default=0.8, gt=0, le=1)
    dead_band: float = Field(default=0.1, ge=0, lt=1)
    up_delay_s: float = Field(default=5.0, ge=0, allow_inf_nan=False)
    down_delay_s: float = Field(default=120.0, ge=0, allow_inf_nan=False)
    max_step_up: float = Field(default=4.0, gt=1, allow_inf_nan=False)
    stale_after_s: float = Field(default=30.0, gt=0, allow_inf_nan=False)
    smoothing_s: float = Field(default=5.0, gt=0, allow_inf_nan=False)
    models: Mapping[str, ModelScaling] = {}

    def of(self, model: str, *, least: int = 1) -> ScalingSettings:
        """Return the settings of one model.

        Args:
            least: Number that always runs, whatever the bounds are.
        """
        own = self.models.get(model, ModelScaling()).model_dump(exclude_none=True)
        held = self.model_copy(update={**own, "models": {}})
        low = max(held.min_replicas, least)
        high = max(held.max_replicas, low) if least > 1 else held.max_replicas
        return held.model_copy(update={"min_replicas": low, "max_replicas": high})

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (1 + self.dead_band) * self.utilisation > 1:
            raise ValueError(
                f"a dead_band of {self.dead_band:g} uses up the reserve that a utilisation of "
                f"{self.utilisation:g} leaves; (1 + dead_band) * utilisation must not exceed 1"
            )
        held: dict[str, ScalingSettings] = {"": self}
        held |= {f"{model}: ": self.of(model) for model in self.models}
        for whose, own in held.items():
            if own.min_replicas > own.max_replicas:
                raise ValueError(
                    f"{whose}min_replicas {own.min_replicas} is above max_replicas "
                    f"{own.max_replicas}"
                )
        return self
