"""Settings of one training run. Frozen; each setting is defined only here."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from serve.settings import Settings

FROZEN_EPOCHS = 40
FULL_EPOCHS = 4


class TextClassificationSettings(Settings):
    """Settings for training a text classifier from a base model and labelled texts.

    Attributes:
        data: Labelled texts: ``.jsonl`` (an object per line), ``.csv`` or ``.tsv``.
        out: Path of the model directory; must not exist, or be empty.
        base: A model directory, a Hugging Face directory or a name on the hub; None uses the
            packaged all-MiniLM-L6-v2, which needs no network. Its encoder and tokeniser are
            used, its head is not.
        freeze: ``encoder`` encodes texts once and trains only the head: it takes seconds and is
            enough where words decide. ``none`` trains every weight: more accurate with a few
            thousand texts, and every step costs three times an encoding.
        text_field: Field or column that holds the text.
        label_field: Field or column that holds the label; None uses ``label``, or ``labels``
            where there are several. In CSV several labels are separated by ``|``.
        columns: Names of the columns of a CSV or TSV without a header line; None uses the
            first line as the header.
        separator: Separator of the columns of a CSV or TSV; None detects which of ``,``, ``;``,
            tab and ``|`` it is.
        multi_label: A text may have several labels, or none. The classes are the labels that
            occur, in alphabetical order.
        golden: File of golden texts, in addition to some held-out texts: one per line, or
            objects with ``text`` and ``exact``; None for no others.
        max_length: Limit of a text in tokens, special tokens included; longer texts are cut,
            also when served. None uses the base's own limit.
        epochs: Maximum number of passes over the training texts: early stopping may end sooner.
            None uses 40 with a frozen encoder and 4 without.
        patience: Epochs without a lower loss on the validation texts after which training ends;
            the weights with the lowest loss are kept.
        head_lr: Highest learning rate of the head.
        encoder_lr: Highest learning rate of the encoder; unused with a frozen one. Ten times
            more makes it forget what it knows, ten times less learns too little in 4 epochs.
        warmup_share: Fraction of the steps in which the learning rates rise from 0; afterwards
            they fall linearly to 0.
        weight_decay: Weight decay of AdamW for matrices; biases and normalisations have none.
        max_grad_norm: Longer gradients are scaled down to this length.
        batch_tokens: Maximum tokens of one padded batch; more needs more memory.
        batch_items: Maximum number of texts in one batch.
        val_share: Fraction of the texts that decides when to stop.
        test_share: Fraction of the texts for the metrics; they are not used in training.
        seed: Seed of the split, the new head, the order and dropout. The same seed, file and
            machine give the same model.
        device: ``auto`` uses a GPU where there is one.
        precision: Precision of training; ``auto`` uses bf16 where the device supports it.
            Weights are always float32.
    """

    data: Path
    out: Path
    base: str | None = None
    freeze: Literal["encoder", "none"] = "encoder"

    text_field: str = "text"
    label_field: str | None = None
    columns: tuple[str, ...] | None = None
    separator: str | None = Field(default=None, min_length=1, max_length=1)
    multi_label: bool = False
    golden: Path | None = None
    max_length: int | None = Field(default=None, ge=3)

    epochs: int | None = Field(default=None, ge=1)
    patience: int = Field(default=5, ge=1)
    head_lr: float = Field(default=1e-3, gt=0)
    encoder_lr: float = Field(default=5e-5, gt=0)
    warmup_share: float = Field(default=0.1, ge=0, lt=1)
    weight_decay: float = Field(default=0.01, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    batch_tokens: int = Field(default=2048, ge=16)
    batch_items: int = Field(default=32, ge=1)

    val_share: float = Field(default=0.1, gt=0, lt=0.5)
    test_share: float = Field(default=0.2, gt=0, lt=0.5)
    seed: int = Field(default=0, ge=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "f32", "bf16"] = "auto"

    @model_validator(mode="after")
    def _longest_text_fits_a_batch(self) -> Self:
        if self.max_length is not None and self.max_length > self.batch_tokens:
            raise ValueError(
                f"--max-length {self.max_length} is above --batch-tokens {self.batch_tokens}: "
                "a text must fit into a batch"
            )
        return self

    @property
    def label_name(self) -> str:
        """Name of the field or column that holds the label or labels."""
        return self.label_field or ("labels" if self.multi_label else "label")

    @property
    def epoch_limit(self) -> int:
        """Maximum number of passes over the training texts."""
        return self.epochs or (FROZEN_EPOCHS if self.freeze == "encoder" else FULL_EPOCHS)
