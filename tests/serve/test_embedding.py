from __future__ import annotations

import pytest
from pydantic import ValidationError

from serve.embedding import EmbeddingHead, Pooling

HEAD = EmbeddingHead(
    pooling=Pooling(),
    prompts={"query": "Query: ", "document": "", "none": "x"},
    default_prompt_name="query",
)


def test_prompt_is_that_of_the_name_or_the_default() -> None:
    assert HEAD.prompt(None) == "Query: "
    assert HEAD.prompt("none") == "x"
    assert HEAD.prompt("document") == ""
    assert EmbeddingHead(pooling=Pooling(), prompts={"query": "Query: "}).prompt(None) == ""


def test_unknown_prompt_is_named_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match="no prompt 'passage'; the model has query, document"):
        HEAD.prompt("passage")
    with pytest.raises(ValueError, match="no prompt 'query'; the model has none"):
        EmbeddingHead(pooling=Pooling()).prompt("query")


def test_default_prompt_must_exist() -> None:
    with pytest.raises(ValidationError, match="there is no prompt 'passage'"):
        EmbeddingHead(pooling=Pooling(), prompts={"query": ""}, default_prompt_name="passage")


@pytest.mark.parametrize(
    "pooling",
    [{"mode": "median"}, {"also": ["mean-max"]}, {"skip": -1}, {"last_k": 0}, {"dimensions": 0}],
)
def test_pooling_of_no_meaning_is_refused(pooling: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Pooling.model_validate(pooling)
