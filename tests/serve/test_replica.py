from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from sentence_transformers import SentenceTransformer

from serve.artifact import CARD_FILE, GOLDEN_FILE, Artifact, seal, write_card
from serve.contract import Answer, CallOptions, Failure, FailureKind, Outcome
from serve.echo import EchoReplica
from serve.engine.protocol import Inferred, Item
from serve.errors import (
    ArtifactAltered,
    ArtifactError,
    EngineError,
    ParametersRefused,
    TaskMismatch,
)
from serve.importing import import_model
from serve.replica import WARM_UP_SINGLES, Replica
from serve.settings import EngineSettings, ModelSettings
from serve.sources import locate
from serve.tasks.text_classification import ClassificationHead
from serve.tokenize import MAX_WINDOWS
from tests.serve.tiny import TEXTS, MakeSource

pytestmark = pytest.mark.model

TEXT = CallOptions(format="text")
# How far a number of two embeddings of one text may lie apart.
TOLERANCE = {"f32": 1.01e-4, "f16": 1e-3, "bf16": 3e-3}


def settings(path: Path, **engine: Any) -> ModelSettings:
    return ModelSettings(name="model", path=path, engine=EngineSettings(**engine))


@pytest.fixture(scope="module")
def classifier(sentiment: Artifact) -> Iterator[Replica]:
    replica = Replica(settings(sentiment.path, precision="f32"))
    yield replica
    replica.close()


@pytest.fixture(scope="module", params=["f32", "auto"])
def embedder(minilm: Artifact, request: pytest.FixtureRequest) -> Iterator[Replica]:
    replica = Replica(settings(minilm.path, precision=request.param))
    yield replica
    replica.close()


def test_text_without_a_token_is_empty(make_source: MakeSource, tmp_path: Path) -> None:
    source = make_source()
    document = orjson.loads((source / "tokenizer.json").read_bytes())
    (source / "tokenizer.json").write_bytes(orjson.dumps(document | {"post_processor": None}))
    plain = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]"}
    (source / "tokenizer_config.json").write_bytes(orjson.dumps(plain))
    artifact = import_model(str(source), tmp_path / "out", task="text-classification")
    replica = Replica(settings(artifact.path, precision="f32"))

    outcomes = replica.predict(["\u200b".encode(), b"fine day", b"\0"], TEXT).outcomes
    assert [type(outcome) for outcome in outcomes] == [Failure, Answer, Failure]
    for outcome in (outcomes[0], outcomes[2]):
        assert isinstance(outcome, Failure)
        assert outcome.kind is FailureKind.EMPTY_TEXT
    (alone,) = replica.predict(["\u200b".encode()], TEXT).outcomes
    assert alone == outcomes[0]
    replica.close()


class BrokenEngine:
    """The engine of a replica, after which every call fails or gives what is not a number."""

    name, precision, device = "broken", "f32", "none"

    def __init__(self, *, raises: bool) -> None:
        self._raises = raises

    def infer(self, items: Sequence[Item]) -> Inferred:
        if self._raises:
            raise EngineError("out of memory")
        outputs = [np.zeros(3, dtype=np.float32) for _ in items]
        longest = max(range(len(items)), key=lambda index: len(items[index].ids))
        outputs[longest][1] = np.nan
        return Inferred([(output,) for output in outputs], 100, 0.25)

    def warm_up(self, item: Item) -> None:
        pass

    def close(self) -> None:
        pass


def texts_of(texts: Sequence[str]) -> list[bytes]:
    return [text.encode() for text in texts]


def answers(outcomes: list[Outcome]) -> list[Answer]:
    assert all(isinstance(outcome, Answer) for outcome in outcomes)
    return [outcome for outcome in outcomes if isinstance(outcome, Answer)]


def test_outcomes_stand_in_the_order_of_the_values(classifier: Replica) -> None:
    values = [
        b'{"id": 7, "text": "fine"}',
        b"{broken",
        b'{"text": "not good"}',
        b'{"id": 8}',
        b'{"id": "x", "text": "fine"}',
    ]
    first, broken, second, missing, third = classifier.predict(values, CallOptions()).outcomes

    assert isinstance(broken, Failure)
    assert broken.kind is FailureKind.NOT_JSON
    assert isinstance(missing, Failure)
    assert missing.kind is FailureKind.NO_TEXT
    assert isinstance(first, Answer)
    assert isinstance(second, Answer)
    assert isinstance(third, Answer)
    assert (first.id, second.id, third.id) == (b"7", None, b'"x"')
    assert first.result == third.result != second.result
    assert (first.tokens, second.tokens) == (3, 4)


def test_answer_is_that_of_the_pipeline_of_the_task(classifier: Replica) -> None:
    answer = answers(classifier.predict([b"fine"], TEXT).outcomes)[0]
    result = orjson.loads(answer.result)

    assert {item["label"] for item in result} == {"negative", "neutral", "positive"}
    assert sum(item["score"] for item in result) == pytest.approx(1.0, abs=2e-4)
    assert (answer.label, answer.confidence) == (result[0]["label"], result[0]["score"])


def test_equal_texts_are_computed_once(classifier: Replica) -> None:
    once = classifier.predict(texts_of(["fine", "not good"]), TEXT)
    often = classifier.predict(texts_of(["fine", "not good", "fine", "fine"]), TEXT)

    assert often.stats.distinct_texts == once.stats.distinct_texts == 2
    assert often.stats.tokens == once.stats.tokens == 7
    assert often.outcomes == [*once.outcomes, once.outcomes[0], once.outcomes[0]]


def test_batch_without_a_text_costs_nothing(classifier: Replica) -> None:
    reply = classifier.predict([b"", b" "], TEXT)

    assert [type(outcome) for outcome in reply.outcomes] == [Failure, Failure]
    assert (reply.stats.tokens, reply.stats.padded_tokens, reply.stats.distinct_texts) == (0, 0, 0)


def test_padding_is_counted(classifier: Replica) -> None:
    stats = classifier.predict(texts_of(["one", "one two three"]), TEXT).stats

    assert (stats.tokens, stats.padded_tokens) == (3 + 5, 5 + 5)
    assert stats.seconds > 0


def test_long_text_is_cut_and_flagged(classifier: Replica) -> None:
    long, short = answers(classifier.predict([b"word " * 300, b"word"], TEXT).outcomes)

    assert (long.tokens, long.truncated) == (64, True)
    assert (short.tokens, short.truncated) == (3, False)


def test_long_text_fails_where_the_pipeline_says_so(classifier: Replica) -> None:
    options = CallOptions(format="text", long_text="dead-letter")
    reply = classifier.predict([b"word " * 300, b"word", b"word " * 62], options)
    long, short, full = reply.outcomes

    assert isinstance(long, Failure)
    assert long.kind is FailureKind.TOO_LONG
    assert "64 tokens" in long.message
    assert [item.tokens for item in answers([short, full])] == [3, 64]
    assert reply.stats.tokens == 67


def test_odd_characters_do_no_harm(classifier: Replica) -> None:
    values = texts_of(["\0", "a\0b", "\ufeff\ufeffa", "\U0001f600", "\u202e", "\ufffd", "é" * 5000])

    assert len(answers(classifier.predict(values, TEXT).outcomes)) == len(values)


def test_number_that_is_not_finite_fails_its_record_alone(
    classifier: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifier, "_engine", BrokenEngine(raises=False))
    reply = classifier.predict(texts_of(["short", "a longer text"]), TEXT)
    short, long = reply.outcomes

    assert (reply.stats.compute_s, reply.stats.padded_tokens) == (0.25, 100)
    assert isinstance(short, Answer)
    assert isinstance(long, Failure)
    assert long.kind is FailureKind.POISON
    # One of several windows is enough.
    windowed = CallOptions(format="text", long_text="window", window_stride=0)
    short, long = classifier.predict([b"short", b"word " * 100], windowed).outcomes
    assert isinstance(short, Answer)
    assert isinstance(long, Failure)
    assert long.kind is FailureKind.POISON


def test_shapes_of_single_texts_are_behind_before_the_first_record(
    sentiment: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes: Counter[int] = Counter()

    class Counting(BrokenEngine):
        def infer(self, items: Sequence[Item]) -> Inferred:
            return Inferred([(np.zeros(3, np.float32),) for _ in items], 0, 0.0)

        def warm_up(self, item: Item) -> None:
            assert item.types is not None
            assert len(item.types) == len(item.ids)
            shapes[len(item.ids)] += 1

    monkeypatch.setattr("serve.replica.open_engine", lambda *_, **__: Counting(raises=False))
    Replica(ModelSettings(name="m", path=sentiment.path))
    longest = min(WARM_UP_SINGLES, sentiment.card.max_length)
    assert all(shapes[width] for width in range(3, longest + 1))


def test_fault_of_the_engine_is_raised(
    classifier: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifier, "_engine", BrokenEngine(raises=True))

    with pytest.raises(EngineError, match="out of memory"):
        classifier.predict([b"fine"], TEXT)


def test_text_alone_and_in_any_batch_gives_the_same_bytes_of_scores(classifier: Replica) -> None:
    together = answers(classifier.predict(texts_of(TEXTS), TEXT).outcomes)
    reversed_ = answers(classifier.predict(texts_of(TEXTS[::-1]), TEXT).outcomes)[::-1]
    alone = [answers(classifier.predict([text.encode()], TEXT).outcomes)[0] for text in TEXTS]

    assert len({answer.result for answer in together}) == len(TEXTS)
    assert [answer.result for answer in reversed_] == [answer.result for answer in together]
    assert [answer.result for answer in alone] == [answer.result for answer in together]


def test_text_alone_and_in_any_batch_gives_the_same_embedding(embedder: Replica) -> None:
    together = answers(embedder.predict(texts_of(TEXTS), TEXT).outcomes)
    alone = [answers(embedder.predict([text.encode()], TEXT).outcomes)[0] for text in TEXTS]

    for one, other in zip(together, alone, strict=True):
        difference = np.subtract(orjson.loads(one.result), orjson.loads(other.result))
        assert np.abs(difference).max() <= TOLERANCE[embedder.info().precision]
    same = sum(one.result == other.result for one, other in zip(together, alone, strict=True))
    assert same >= len(TEXTS) / 2


def test_embeddings_agree_with_sentence_transformers(embedder: Replica) -> None:
    peer = SentenceTransformer(str(locate(None)), device="cpu").encode(TEXTS)
    found = [
        orjson.loads(item.result)
        for item in answers(embedder.predict(texts_of(TEXTS), TEXT).outcomes)
    ]

    cosines = (peer * np.array(found)).sum(axis=1) / np.linalg.norm(found, axis=1)
    assert cosines.min() > 0.9999


PAIRS = [
    b'{"text": "Is it good?", "text_pair": "It lasts two days."}',
    b'{"text": "It lasts two days.", "text_pair": "Is it good?"}',
    b'{"text": "It lasts two days."}',
    b'{"id": 1, "text": "Is it good?", "text_pair": "It lasts two days."}',
]


def test_equal_pairs_are_computed_once(classifier: Replica) -> None:
    reply = classifier.predict(PAIRS, CallOptions())
    first, turned, alone, again = answers(reply.outcomes)

    assert reply.stats.distinct_texts == 3
    assert (again.result, again.id) == (first.result, b"1")
    assert len({first.result, turned.result, alone.result}) == 3
    assert reply.stats.tokens == first.tokens + turned.tokens + alone.tokens


def test_pair_alone_and_in_any_batch_gives_the_same_bytes(classifier: Replica) -> None:
    values = [*PAIRS, *(b'{"text": "%s"}' % text.encode() for text in TEXTS[:2])]
    together = answers(classifier.predict(values, CallOptions()).outcomes)
    alone = [answers(classifier.predict([value], CallOptions()).outcomes)[0] for value in values]

    assert [answer.result for answer in alone] == [answer.result for answer in together]


def test_long_text_in_windows_is_computed_whole(classifier: Replica) -> None:
    options = CallOptions(format="text", long_text="window", window_stride=10)
    short, long = b"word", b"word " * 100
    reply = classifier.predict([short, long], options)
    first, second = answers(reply.outcomes)

    # 62 tokens of the text in each of two windows, of which 10 in both.
    assert (second.tokens, second.truncated) == (64 + 2 + 100 - 62 + 10, False)
    assert reply.stats.tokens == first.tokens + second.tokens
    assert reply.stats.distinct_texts == 2
    (cut,) = answers(classifier.predict([short], TEXT).outcomes)
    assert first == cut


def test_text_with_too_many_windows_fails_alone(classifier: Replica) -> None:
    options = CallOptions(format="text", long_text="window", window_stride=0)
    most, more = b"word " * (MAX_WINDOWS * 62), b"word " * (MAX_WINDOWS * 62 + 1)
    short, failed, full = classifier.predict([b"word", more, most], options).outcomes

    assert isinstance(failed, Failure)
    assert failed.kind is FailureKind.TOO_LONG
    assert f"{MAX_WINDOWS + 1} windows" in failed.message
    assert [item.tokens for item in answers([short, full])] == [3, MAX_WINDOWS * 64]


def test_unknown_parameter_is_refused_before_any_record(classifier: Replica) -> None:
    with pytest.raises(ParametersRefused, match="there is no topk; did you mean top_k"):
        classifier.predict([b"fine"], CallOptions(format="text", parameters={"topk": 1}))


def test_parameters_are_those_of_the_call(classifier: Replica) -> None:
    one = CallOptions(format="text", parameters={"top_k": 1})
    (best,) = answers(classifier.predict([b"fine"], one).outcomes)
    (every,) = answers(classifier.predict([b"fine"], TEXT).outcomes)

    assert orjson.loads(best.result) == orjson.loads(every.result)[:1]


def test_several_threads_get_their_own_answers(classifier: Replica) -> None:
    calls = [texts_of([*TEXTS[turn:], *TEXTS[:turn]]) for turn in range(len(TEXTS))] * 4
    expected = [classifier.predict(call, TEXT).outcomes for call in calls]
    with ThreadPoolExecutor(4) as threads:
        replies = list(threads.map(lambda call: classifier.predict(call, TEXT), calls))

    assert [reply.outcomes for reply in replies] == expected


def test_multi_label_model_scores_each_label(make_source: MakeSource, tmp_path: Path) -> None:
    source = make_source(num_labels=3, problem_type="multi_label_classification")
    artifact = import_model(str(source), tmp_path / "model", task="text-classification")
    replica = Replica(settings(artifact.path, precision="f32"))
    results = [
        orjson.loads(item.result)
        for item in answers(replica.predict(texts_of(TEXTS), TEXT).outcomes)
    ]
    replica.close()

    sums = [sum(item["score"] for item in result) for result in results]
    assert max(abs(total - 1.0) for total in sums) > 0.05


def test_info_says_who_answers(classifier: Replica, sentiment: Artifact) -> None:
    info = classifier.info()

    assert (info.model, info.version, info.digest) == ("model", "1", sentiment.digest)
    assert (info.task, info.precision) == ("text-classification", "f32")
    assert classifier.predict([b"fine"], TEXT).digest == sentiment.digest


def test_altered_model_does_not_start(sentiment: Artifact, tmp_path: Path) -> None:
    path = Path(shutil.copytree(sentiment.path, tmp_path / "model"))
    (path / CARD_FILE).write_bytes((path / CARD_FILE).read_bytes().replace(b"neutral", b"Neutral"))

    with pytest.raises(ArtifactAltered):
        Replica(settings(path))


def test_model_of_another_task_does_not_start(sentiment: Artifact) -> None:
    with pytest.raises(TaskMismatch):
        Replica(settings(sentiment.path).model_copy(update={"task": "feature-extraction"}))


def test_text_above_the_budget_is_a_batch_of_its_own(
    classifier: Replica, sentiment: Artifact
) -> None:
    assert sentiment.card.max_length > 16
    replica = Replica(settings(sentiment.path, precision="f32", max_batch_tokens=16))
    values = [b"fine day " * 40, b"fine", b"good day " * 40]
    assert replica.predict(values, TEXT).outcomes == classifier.predict(values, TEXT).outcomes
    replica.close()


def test_golden_texts_are_asked_at_the_start(
    classifier: Replica, sentiment: Artifact, tmp_path: Path
) -> None:
    path = Path(shutil.copytree(sentiment.path, tmp_path / "model"))
    result = answers(classifier.predict([b"fine"], TEXT).outcomes)[0].result
    (path / GOLDEN_FILE).write_bytes(b'{"record": {"text": "fine"}, "result": %s}' % result)
    seal(path)
    Replica(settings(path, precision="f32")).close()

    head = ClassificationHead(labels=("neutral", "positive", "no"), problem_type="single_label")
    write_card(path, sentiment.card.model_copy(update={"head": head}))
    seal(path)
    with pytest.raises(ArtifactError, match="line 1 is answered differently"):
        Replica(settings(path, precision="f32"))


def test_echo_reads_as_a_replica_does(classifier: Replica, sentiment: Artifact) -> None:
    values = [b'{"id": 7, "text": "fine"}', b"{broken", b'{"text": " "}', b'{"text": "fine"}']
    echo = EchoReplica(settings(sentiment.path, kind="echo"))
    real = classifier.predict(values, CallOptions())
    reply = echo.predict(values, CallOptions())

    assert (echo.info().engine, echo.info().digest) == ("echo", sentiment.digest)
    assert [type(outcome) for outcome in reply.outcomes] == [Answer, Failure, Failure, Answer]
    assert reply.outcomes[1:3] == real.outcomes[1:3]
    first = reply.outcomes[0]
    assert isinstance(first, Answer)
    assert (first.id, first.result) == (b"7", b'[{"label":"ECHO","score":1.0}]')
    assert reply.stats.distinct_texts == 1
