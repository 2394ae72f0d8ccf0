"""Settings of one training run. Frozen; every knob has its one place here."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from serve.settings import Settings

FROZEN_EPOCHS = 40
FULL_EPOCHS = 4


class TextClassificationSettings(Settings):
    """How a text classifier is made of a base model and labelled texts.

    Attributes:
        data: Labelled texts: ``.jsonl`` (an object per line), ``.csv`` or ``.tsv``.
        out: Where the model directory goes; must not exist, or be empty.
        base: A model directory, a Hugging Face directory or a name on the hub; None takes the
            packaged all-MiniLM-L6-v2, which needs no network. Its encoder and tokeniser are
            used, a head that it has is not.
        freeze: ``encoder``: texts are encoded once and only the head learns: seconds, and
            enough where words decide. ``none``: every weight learns: more accurate with some
            thousand texts, and every step costs three times an encoding.
        text_field: Field or column that holds the text.
        label_field: Field or column that holds the label; None takes ``label``, or ``labels``
            where there are several. In CSV several labels stand with ``|`` between.
        columns: Names of the columns of a CSV or TSV without a header line; None takes the
            first line as the header.
        separator: Between the columns of a CSV or TSV; None finds out which of ``,``, ``;``, tab
            and ``|`` it is.
        multi_label: A text may have several labels, or none. The classes are the labels that
            occur, in alphabetical order.
        golden: Texts to know the model by, beside some that training never saw: one a line, or
            objects with ``text`` and ``exact``; None for no others.
        max_length: Tokens of a text, special tokens included; longer ones are cut, when served
            too. None takes the base's own limit.
        epochs: Times through the training texts, at most: early stopping may end before. None
            takes 40 with a frozen encoder and 4 without.
        patience: Epochs without a lower loss on the validation texts that end the training;
            the weights of the lowest are kept.
        head_lr: Highest learning rate of the head.
        encoder_lr: Highest learning rate of the encoder; unused with a frozen one. Ten times
            more makes it forget what it knows, ten times less learns too little in 4 epochs.
        warmup_share: Share of the steps in which the learning rates rise from 0; in the rest
            they fall to 0 on a straight line.
        weight_decay: Of AdamW, for matrices; biases and normalisations have none.
        max_grad_norm: Longer gradients are scaled down to this length.
        batch_tokens: Tokens of one padded batch, at most; more needs more memory.
        batch_items: Texts of one batch, at most.
        val_share: Share of the texts that decides when to stop.
        test_share: Share of the texts that the metrics are measured on; training never sees it.
        seed: Of the split, the new head, the order and dropout. Same seed, file and machine,
            same model.
        device: ``auto`` takes a GPU where there is one.
        precision: Of training; ``auto`` takes bf16 where the device computes in it. Weights
            are float32 in any case.
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
        """Field or column that holds the label or labels."""
        return self.label_field or ("labels" if self.multi_label else "label")

    @property
    def epoch_limit(self) -> int:
        """Times through the training texts, at most."""
        return self.epochs or (FROZEN_EPOCHS if self.freeze == "encoder" else FULL_EPOCHS)
