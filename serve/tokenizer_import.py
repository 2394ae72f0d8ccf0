"""Import of an external model's tokeniser: built by transformers, written as it is served.

The written tokeniser is compared with transformers, text by text; a difference is refused.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, normalizers
from transformers import AutoTokenizer, PreTrainedTokenizer, PreTrainedTokenizerFast
from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

from serve.artifact import TOKENIZER_FILE, Artifact, Tokenizing
from serve.checkpoint import library, read_json
from serve.contract import Failure
from serve.errors import ArtifactError
from serve.probe_texts import WRITTEN, probe_texts
from serve.registry import task_type
from serve.task import Division, Encoded, Passage
from serve.tokenize import TextTokenizer

# Files of a tokeniser with JSON objects; broken ones are named before transformers reads them.
JSON_FILES = (
    "tokenizer_config.json",
    "tokenizer.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
)
SHOWN = 80
# Neighbours are compared as pairs.
PAIRED = (*WRITTEN[2:8], "[SEP] </s>", "Où est-ce?", "漢字 😀")


def build_tokenizer(directory: Path, options: Mapping[str, Any] | None = None) -> Any:
    """Build the tokeniser that transformers creates from all files of a directory.

    Args:
        directory: Has the files of the tokeniser and the configuration of the model.
        options: Passed on to ``from_pretrained``.
    Returns:
        A transformers tokeniser that is implemented in Rust.
    Raises:
        ArtifactError: transformers creates none, or one only in Python. Not retriable.
    """
    documents = {name: read_json(directory / name) for name in JSON_FILES}
    declared = documents["tokenizer_config.json"].get("tokenizer_class")
    _refuse_python(directory, _class_named(declared))
    _require_pair(directory)
    with library(directory, "transformers cannot build its tokeniser"):
        tokenizer = AutoTokenizer.from_pretrained(
            directory, local_files_only=True, trust_remote_code=False, **(options or {})
        )
    _refuse_python(directory, type(tokenizer))
    return tokenizer


def lower_case(tokenizer: Any) -> None:
    """Convert texts to lower case first, as ``do_lower_case`` of sentence-transformers does."""
    backend = tokenizer.backend_tokenizer
    own: Any = backend.normalizer
    is_list = isinstance(own, normalizers.Sequence)
    steps = list(own) if is_list else [] if own is None else [own]
    if not any(isinstance(step, normalizers.Lowercase) for step in steps):
        backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *steps])


def count_tokens(tokenizer: Any, prompt: str) -> int:
    """Return the number of tokens of a prompt at the start of a text, leading ones included."""
    if not prompt:
        return 0
    ids = tokenizer(prompt, truncation=True).input_ids
    return len(ids) - (ids[-1] in tokenizer.all_special_ids)


def write_tokenizer(tokenizer: Any, out: Path) -> None:
    """Write ``tokenizer.json``, without truncation and without padding."""
    written = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    written.no_truncation()
    written.no_padding()
    written.save(str(out / TOKENIZER_FILE))


def settings_of(tokenizer: Any, *, token_types: bool) -> Tokenizing:
    """Return the settings that ``tokenizer.json`` does not contain."""
    return Tokenizing(
        token_types=token_types,
        truncation_side=tokenizer.truncation_side,
        split_special_tokens=bool(tokenizer.split_special_tokens),
    )


def require_vocabulary(tokenizer: Any, directory: Path, rows: int) -> None:
    """Refuse the tokeniser of another model, and one with only special tokens.

    Args:
        rows: Rows of the model's table of token vectors.
    Raises:
        ArtifactError: The tokeniser has no words, or tokens for which the model has no vector.
            Not retriable.
    """
    remedy = "add the tokenizer.json or the word list that the model was trained with"
    vocabulary = tokenizer.get_vocab()
    # Without any file, transformers builds one with only special tokens.
    if not set(vocabulary) - {str(token) for token in tokenizer.all_special_tokens}:
        raise ArtifactError(
            f"{directory}: the tokeniser has no words, {len(vocabulary)} special tokens; {remedy}"
        )
    last = max(vocabulary, key=lambda token: vocabulary[token])
    if vocabulary[last] >= rows:
        raise ArtifactError(
            f"{directory}: the tokeniser's token {last!r} has the id {vocabulary[last]}, but "
            f"the model has vectors for {rows} tokens; {remedy}"
        )


def require_same(tokenizer: Any, artifact: Artifact, *, takes_types: bool) -> None:
    """Compare the written tokeniser with transformers on a few hundred texts.

    Args:
        tokenizer: The source's tokeniser, by transformers.
        artifact: The directory that was written.
        takes_types: Whether the model distinguishes types of tokens.
    Raises:
        ArtifactError: They differ; the message names the text. Not retriable.
    """
    card = artifact.card
    task = task_type(card.task)
    special = [*map(str, tokenizer.all_special_tokens), *tokenizer.get_added_vocab()]
    texts = probe_texts(
        sorted(tokenizer.get_vocab()),
        special=list(dict.fromkeys(special)),
        max_length=card.max_length,
    )
    passages = [Passage(text) for text in texts]
    if task.reads_pairs:
        long = texts[-1]
        passages = [
            *passages,
            *itertools.starmap(Passage, itertools.pairwise(PAIRED)),
            Passage(*((long, PAIRED[0]) if task.truncation == "only_first" else (PAIRED[0], long))),
        ]
    division = Division(truncation=task.truncation)
    with library(artifact.path, "its tokeniser fails on some texts"):
        served = TextTokenizer.of(artifact)
        # A text alone is always the one that is cut, whichever of two texts the task cuts.
        alone, pairs = passages[: len(texts)], passages[len(texts) :]
        own = [*served.divide(alone), *served.divide(pairs, division)]
        for passage, windows in zip(passages, own, strict=True):
            assert not isinstance(windows, Failure)  # only texts of pairs are too long, and no pair
            theirs = tokenizer(
                *(passage[:1] if passage.pair is None else passage),
                truncation=task.truncation if passage.pair else True,
                max_length=card.max_length,
            )
            _require_equal(passage, windows[0], theirs, artifact, takes_types=takes_types)


def _require_equal(
    passage: Passage, served: Encoded, theirs: Any, artifact: Artifact, *, takes_types: bool
) -> None:
    base = artifact.card.base
    shown = " and ".join(_shown(text) for text in passage if text is not None)
    ids = served.ids.tolist()
    if ids != theirs["input_ids"]:
        raise ArtifactError(
            f"{base}: for the text {shown} transformers gives the tokens "
            f"{_difference(theirs['input_ids'], ids)}; such a tokeniser cannot be served"
        )
    types = theirs.get("token_type_ids") or [0] * len(ids)
    same_types = types == served.types.tolist() if served.types is not None else not any(types)
    if (takes_types and not same_types) or not all(theirs.get("attention_mask") or [1]):
        raise ArtifactError(
            f"{base}: for the text {shown} its tokeniser gives token types or masks that are not "
            "supported; choose another model"
        )


def _require_pair(directory: Path) -> None:
    """Refuse a byte-pair encoding that lacks one of its two files."""
    names = {file.name for file in directory.iterdir()}
    if TOKENIZER_FILE in names or any(name.endswith((".model", ".spm")) for name in names):
        return
    for here, missing in (("vocab.json", "merges.txt"), ("merges.txt", "vocab.json")):
        if here in names and missing not in names:
            raise ArtifactError(f"{directory / missing} is missing and {here} is not; download it")


def _refuse_python(directory: Path, kind: Any) -> None:
    """Refuse a class that transformers has only in Python; None stands for no class."""
    if kind is None or issubclass(kind, PreTrainedTokenizerFast):
        return
    raise ArtifactError(
        f"{directory}: its tokeniser {kind.__name__} exists only in Python, but only those of "
        "the library tokenizers are served; choose a model with a tokenizer.json"
    )


def _class_named(name: object) -> Any:
    if not isinstance(name, str):
        return None
    found = tokenizer_class_from_name(name)
    # The base class leaves the choice to the directory's other files.
    return None if found is PreTrainedTokenizer else found


def _shown(text: str) -> str:
    return repr(text) if len(text) <= SHOWN else f"{text[:SHOWN]!r}... ({len(text)} characters)"


def _difference(wanted: Sequence[int], served: Sequence[int]) -> str:
    pairs = zip(wanted, served, strict=False)
    shorter = min(len(wanted), len(served))
    at = next((n for n, (one, other) in enumerate(pairs) if one != other), shorter)
    return (
        f"{list(wanted[at : at + 5])} from position {at} of {len(wanted)}, but "
        f"{list(served[at : at + 5])} of {len(served)} would be served"
    )
