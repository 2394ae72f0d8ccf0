from __future__ import annotations

import random
import shutil
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from serve.agreement import TOLERANCES
from serve.artifact import TOKENIZER_FILE, Artifact
from serve.contract import Answer, CallOptions, Failure, FailureKind, Outcome
from serve.errors import ArtifactError, ParametersRefused
from serve.parameters import checked_parameters
from serve.registry import task_type
from serve.replica import Replica
from serve.settings import EngineSettings, ModelSettings
from serve.sources import locate
from serve.task import Computed, Head, Passage, Prediction, Window
from serve.tasks.question_answering import AnswerParameters, QuestionAnswering
from serve.tokenize import TextTokenizer
from tests.serve.tiny import tiny_config

LONG = " ".join(
    f"In chapter {n} the unflappable cartographer misremembers harbour {n * 37 % 101}, and sails."
    for n in range(12)
)
CONTEXTS = [
    "Berlin",
    "The parcel came late, and the box was open.",
    "Paris is the capital of France. PARIS is large; paris is old.",
    "😀 two 👩‍👩‍👧 families and 🏴‍☠️ flags, 😀 again",
    "富士山は日本で一番高い山で、高さは3776メートルです。",
    "re\u0301sume\u0301 et nai\u0308vete\u0301, Ελλάδα, ﬁve ﬂags",
    "אני גר בירושלים משנת 1987 ועובד באוניברסיטה",
    "القاهرة هي عاصمة مصر منذ 969",
    "Tab\tand\nnew line   and   many   blanks",
    "a literal [SEP] and [CLS] within the text",
    "unflappableness antidisestablishmentarianism floccinaucinihilipilification",
    "?!... --- ;;",
    LONG,
    "東京は日本の首都です。" * 12,
    "unbelievableness 😀 " * 20,
]
QUESTIONS = ["Who?", "What is the capital of France?", "高さは何メートルですか", "מתי 😀 e\u0301?"]
RECORDS = [
    {"question": QUESTIONS[(number + shift) % len(QUESTIONS)], "context": context}
    for shift in (0, 1)
    for number, context in enumerate(CONTEXTS)
]
PARAMETERS: list[dict[str, Any]] = [
    {"doc_stride": 16},
    {"doc_stride": 16, "top_k": 5},
    {"doc_stride": 10, "max_seq_len": 40, "top_k": 3, "handle_impossible_answer": True},
    {"doc_stride": 4, "max_seq_len": 32, "top_k": 20, "max_answer_len": 100},
    {"doc_stride": 8, "align_to_words": False, "top_k": 4, "max_answer_len": 3},
    {"doc_stride": 16, "max_answer_len": 1, "handle_impossible_answer": True},
    {"doc_stride": 12, "max_seq_len": 48, "top_k": 3, "window_merge": "sum"},
]
TOLERANCE = 1e-4
TASK = QuestionAnswering.name


def open_replica(artifact: Artifact, engine: str = "torch") -> Replica:
    settings = EngineSettings(kind=engine, precision="f32")
    return Replica(ModelSettings(name="answers", path=artifact.path, engine=settings))


def outcomes_of(
    replica: Replica, records: list[dict[str, Any]], parameters: Mapping[str, Any] | None = None
) -> list[Outcome]:
    options = CallOptions(parameters=parameters or {})
    return replica.predict([orjson.dumps(record) for record in records], options).outcomes


def results_of(
    replica: Replica, records: list[dict[str, Any]], parameters: Mapping[str, Any] | None = None
) -> list[Any]:
    outcomes = outcomes_of(replica, records, parameters)
    assert all(isinstance(outcome, Answer) for outcome in outcomes), outcomes
    return [orjson.loads(outcome.result) for outcome in outcomes if isinstance(outcome, Answer)]


class Peer:
    """The model and the tokeniser of a source in transformers, and the search as plain loops."""

    def __init__(self, source: Path) -> None:
        from transformers import AutoModelForQuestionAnswering, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(source)
        self.model = AutoModelForQuestionAnswering.from_pretrained(source).eval()

    def answers(
        self,
        record: Mapping[str, str],
        *,
        doc_stride: int,
        top_k: int = 1,
        max_seq_len: int = 64,
        max_answer_len: int = 15,
        handle_impossible_answer: bool = False,
        align_to_words: bool = True,
        window_merge: str = "max",
    ) -> list[dict[str, Any]]:
        texts = record["question"], record["context"]
        encoded = self.tokenizer(
            *texts,
            truncation="only_second",
            max_length=max_seq_len,
            stride=doc_stride,
            return_overflowing_tokens=True,
        )
        whole = self.tokenizer(*texts)
        best: dict[str, dict[str, Any]] = {}
        none = 1.0
        for row, window in enumerate(encoded.encodings):
            tokens = [n for n, text in enumerate(encoded.sequence_ids(row)) if text == 1]
            starts, ends = self._probabilities(window, [0, *tokens])
            none = min(none, starts[0] * ends[0])
            spans = [
                (starts[first] * ends[last], -first, -last)
                for first in tokens
                for last in tokens
                if 0 <= last - first < max_answer_len
            ]
            likely = sorted(spans, reverse=True)[: 2 * top_k + 10 if align_to_words else top_k]
            found: dict[str, dict[str, Any]] = {}
            for score, first, last in likely:
                start, end = window.offsets[-first][0], window.offsets[-last][1]
                words = window.token_to_word(-first), window.token_to_word(-last)
                if align_to_words and None not in words:
                    start = whole.word_to_chars(words[0], sequence_index=1).start
                    end = whole.word_to_chars(words[1], sequence_index=1).end
                part = texts[1][start:end]
                answer = part.strip()
                start += len(part) - len(part.lstrip())
                if not answer:
                    continue
                if answer.lower() in found:
                    found[answer.lower()]["score"] += score
                else:
                    found[answer.lower()] = {
                        "score": score,
                        "start": start,
                        "end": start + len(answer),
                        "answer": answer,
                    }
            for key, one in found.items():
                if key in best and window_merge == "sum":
                    best[key]["score"] += one["score"]
                elif key not in best or one["score"] > best[key]["score"]:
                    best[key] = one
        answers = [*best.values()]
        if handle_impossible_answer:
            answers.append({"score": none, "start": 0, "end": 0, "answer": ""})
        return sorted(answers, key=lambda one: -one["score"])[:top_k]

    def _probabilities(self, window: Any, tokens: list[int]) -> list[dict[int, float]]:
        import torch

        inputs = {"input_ids": window.ids, "attention_mask": window.attention_mask}
        if "token_type_ids" in self.tokenizer.model_input_names:
            inputs["token_type_ids"] = window.type_ids
        with torch.no_grad():
            output = self.model(**{name: torch.tensor([row]) for name, row in inputs.items()})
        return [
            dict(zip(tokens, torch.softmax(row[0, tokens].double(), 0).tolist(), strict=True))
            for row in (output.start_logits, output.end_logits)
        ]


def require_same(found: Any, expected: list[dict[str, Any]]) -> None:
    found = found if isinstance(found, list) else [found]
    assert [{**one, "score": 0} for one in found] == [{**one, "score": 0} for one in expected]
    scores = [one["score"] for one in found]
    assert scores == pytest.approx([one["score"] for one in expected], abs=TOLERANCE)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from transformers import BertForQuestionAnswering

    directory = tmp_path_factory.mktemp("source")
    torch.manual_seed(11)
    model = BertForQuestionAnswering(tiny_config(initializer_range=0.3))
    model.save_pretrained(directory)
    shutil.copyfile(locate(None) / TOKENIZER_FILE, directory / TOKENIZER_FILE)
    return directory


@pytest.fixture(scope="module")
def artifact(bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    from serve.importing import import_model

    return import_model(str(bert), tmp_path_factory.mktemp("models") / "bert", task=TASK)


@pytest.fixture(scope="module", params=["torch", "openvino"])
def replica(artifact: Artifact, request: pytest.FixtureRequest) -> Iterator[Replica]:
    opened = open_replica(artifact, request.param)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def peer(bert: Path) -> Peer:
    return Peer(bert)


@pytest.mark.model
@pytest.mark.parametrize("parameters", PARAMETERS, ids=str)
def test_answers_are_those_of_transformers(
    replica: Replica, peer: Peer, parameters: dict[str, Any]
) -> None:
    found = results_of(replica, RECORDS, parameters)

    for record, result in zip(RECORDS, found, strict=True):
        assert isinstance(result, list) is (parameters.get("top_k", 1) > 1)
        require_same(result, peer.answers(record, **parameters))


@pytest.mark.model
def test_an_answer_is_the_part_of_the_context_at_its_place(replica: Replica) -> None:
    for record, result in zip(RECORDS, results_of(replica, RECORDS, {"top_k": 7}), strict=True):
        texts = [one["answer"].lower() for one in result]
        assert len(set(texts)) == len(texts)
        for one in result:
            assert list(one) == ["score", "start", "end", "answer"]
            assert one["answer"] == record["context"][one["start"] : one["end"]]
            assert one["answer"].strip() == one["answer"] != ""
            assert 0.0 <= one["score"] <= 1.0


@pytest.mark.model
def test_a_record_has_the_same_bytes_alone_and_in_any_batch(replica: Replica) -> None:
    parameters = {"doc_stride": 16, "top_k": 3, "handle_impossible_answer": True}
    alone = [outcomes_of(replica, [record], parameters)[0] for record in RECORDS]
    order = list(range(len(RECORDS)))

    assert outcomes_of(replica, RECORDS, parameters) == alone
    for seed in range(3):
        random.Random(seed).shuffle(order)
        shuffled = outcomes_of(replica, [RECORDS[n] for n in order], parameters)
        assert shuffled == [alone[n] for n in order]


@pytest.mark.model
def test_a_long_context_is_divided_whatever_long_text_is(replica: Replica) -> None:
    value = orjson.dumps({"question": "Who?", "context": LONG})
    found = [
        replica.predict([value], CallOptions(long_text=how, window_stride=1)).outcomes[0]
        for how in ("truncate", "window", "dead-letter")
    ]

    assert found[0] == found[1] == found[2]
    assert isinstance(found[0], Answer)
    assert found[0].truncated is False
    assert found[0].tokens > 3 * 64
    assert found[0].label is None
    assert found[0].confidence == orjson.loads(found[0].result)["score"]


@pytest.mark.model
def test_a_stride_is_smaller_than_a_window(replica: Replica) -> None:
    records = [{"question": "word " * n, "context": LONG} for n in (1, 20, 45, 60)]

    for stride in (0, 31, 10_000):
        results_of(replica, records, {"doc_stride": stride})


@pytest.mark.model
def test_records_without_an_answer_fail_alone(replica: Replica) -> None:
    good = {"question": "Who?", "context": "The parcel came late."}
    bad: list[tuple[dict[str, Any], FailureKind, str]] = [
        ({**good, "question": ""}, FailureKind.EMPTY_TEXT, "'question' is empty"),
        ({**good, "context": " \n\t"}, FailureKind.EMPTY_TEXT, "'context' is empty"),
        ({**good, "question": "\u200b\u200d"}, FailureKind.EMPTY_TEXT, "question has no tokens"),
        ({**good, "context": "\u200b\u200d"}, FailureKind.EMPTY_TEXT, "context has no tokens"),
        ({"question": "Who?"}, FailureKind.NO_TEXT, "no field 'context'"),
        ({**good, "context": ["a"]}, FailureKind.WRONG_TYPE, "'context' is a JSON array"),
        ({**good, "question": "word " * 61}, FailureKind.TOO_LONG, "61 tokens, which leaves none"),
        ({**good, "question": "word " * 900}, FailureKind.TOO_LONG, "more than 62 tokens"),
        ({**good, "context": "word " * 20_000}, FailureKind.TOO_LONG, "windows"),
    ]
    records = [record for record, _, _ in bad]
    outcomes = outcomes_of(replica, [*records, good])

    for outcome, (_, kind, message) in zip(outcomes, bad, strict=False):
        assert isinstance(outcome, Failure)
        assert outcome.kind == kind
        assert message in outcome.message
    assert outcomes[-1:] == outcomes_of(replica, [good])


@pytest.mark.model
@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"max_question_len": 7}, "8 tokens, but max_question_len allows 7; shorten it, or raise"),
        ({"max_seq_len": 11}, "8 tokens, which leaves none of the limit of 11 tokens"),
    ],
)
def test_a_question_is_never_cut(
    replica: Replica, parameters: dict[str, Any], message: str
) -> None:
    record = {"question": "one two three four five six seven eight", "context": "nine"}
    (refused,) = outcomes_of(replica, [record], parameters)
    (name, limit), *_ = parameters.items()

    assert isinstance(refused, Failure)
    assert refused.kind == FailureKind.TOO_LONG
    assert message in refused.message
    assert name in refused.message
    results_of(replica, [record], {name: limit + 1})


@pytest.mark.model
def test_a_model_without_token_types_answers_as_in_transformers(tmp_path: Path) -> None:
    import torch
    from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaForQuestionAnswering

    from serve.importing import import_model

    special = {"pad_token": "<pad>", "cls_token": "<s>", "sep_token": "</s>", "unk_token": "<unk>"}
    tokenizer = byte_tokenizer(list(special.values()))
    torch.manual_seed(5)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = RobertaConfig(
        **sizes,
        vocab_size=tokenizer.get_vocab_size(),
        intermediate_size=64,
        max_position_embeddings=66,
        pad_token_id=0,
        initializer_range=0.3,
    )
    source = tmp_path / "source"
    RobertaForQuestionAnswering(config).save_pretrained(source)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_input_names=["input_ids", "attention_mask"],
        **special,
    ).save_pretrained(source)
    peer = Peer(source)
    replica = open_replica(import_model(str(source), tmp_path / "model", task=TASK))

    # The other questions have more bytes than the model takes tokens.
    records = [record for record in RECORDS if record["question"] in QUESTIONS[:2]]
    for parameters in (
        {"doc_stride": 5, "top_k": 4, "max_seq_len": 63},
        {"doc_stride": 9, "align_to_words": False, "max_seq_len": 63},
    ):
        for record, result in zip(records, results_of(replica, records, parameters), strict=True):
            require_same(result, peer.answers(record, **parameters))
    replica.close()


def byte_tokenizer(special: list[str]) -> Tokenizer:
    """A byte-level tokeniser with pairs as RoBERTa's: offsets without blanks, two separators."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([*CONTEXTS, *QUESTIONS], trainer)
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 1), add_prefix_space=False
    )
    return tokenizer


@pytest.mark.model
def test_golden_records_are_sealed_and_answered_again(bert: Path, tmp_path: Path) -> None:
    from serve.golden_texts import GoldenText
    from serve.importing import import_model

    golden = [GoldenText(dict(record)) for record in RECORDS[:3]]
    artifact = import_model(str(bert), tmp_path / "model", task=TASK, golden=golden)
    open_replica(artifact, "openvino").close()

    assert [one.record for one in artifact.golden()] == RECORDS[:3]
    assert all(one.result["answer"] in one.record["context"] for one in artifact.golden())


@pytest.mark.model
def test_a_source_without_the_head_and_settings_of_a_head_are_refused(
    bert: Path, tmp_path: Path
) -> None:
    from transformers import BertModel

    from serve.importing import import_model

    with pytest.raises(ArtifactError, match="labels was given, but a model for question-answering"):
        import_model(str(bert), tmp_path / "out", task=TASK, head={"labels": ["a"]})
    BertModel(tiny_config()).save_pretrained(tmp_path / "encoder")
    shutil.copyfile(locate(None) / TOKENIZER_FILE, tmp_path / "encoder" / TOKENIZER_FILE)
    with pytest.raises(ArtifactError, match="made for another task"):
        import_model(str(tmp_path / "encoder"), tmp_path / "out", task=TASK)


# The rest needs no model: the logits are chosen.


@cache
def packaged_tokenizer(max_length: int = 64) -> TextTokenizer:
    file = str(locate(None) / TOKENIZER_FILE)
    return TextTokenizer(Tokenizer.from_file(file), max_length=max_length, pad_id=0)


@cache
def without_limit(tokenizer: TextTokenizer) -> Tokenizer:
    whole = Tokenizer.from_str(tokenizer.backend.to_str())
    whole.no_truncation()
    return whole


class Peak(NamedTuple):
    """A likely answer: the place of its first and last token among all tokens of a context."""

    first: int
    last: int
    logit: float = 8.0


def answered(
    tokenizer: TextTokenizer,
    context: str,
    peaks: list[Peak],
    *,
    null: float = 0.0,
    precision: str = "f32",
    **parameters: Any,
) -> Prediction | Failure:
    """Answer a question with logits that are 0 but at the peaks, and at the token before both."""
    task = QuestionAnswering(Head(), precision=precision, tokenizer=tokenizer)
    chosen = AnswerParameters(**parameters)
    values = ("who is it", context)
    passages = task.passages(values, chosen)
    assert passages == [Passage(*values)]
    division = task.division(windows=False, stride=0, parameters=chosen)
    (divided,) = tokenizer.divide(passages, division)
    assert isinstance(divided, list)
    offsets = without_limit(tokenizer).encode(context, add_special_tokens=False).offsets
    windows = []
    for encoded in divided:
        assert encoded.encoding is not None
        logits = np.zeros((len(encoded.ids), 2), np.float32)
        logits[0] = null
        for place, sequence in enumerate(encoded.encoding.sequence_ids):
            for peak in peaks if sequence == 1 else ():
                own = encoded.encoding.offsets[place]
                logits[place, 0] += peak.logit * (own == offsets[peak.first])
                logits[place, 1] += peak.logit * (own == offsets[peak.last])
        windows.append(Window(encoded, (logits,)))
    (prediction,) = task.predictions([Computed(values, passages, [windows])], chosen)
    return prediction


def results(prediction: Prediction | Failure) -> Any:
    assert isinstance(prediction, Prediction), prediction
    return orjson.loads(prediction.result)


@pytest.mark.parametrize(
    ("context", "peak", "answer"),
    [
        ("The battery lasts two days.", Peak(3, 4), "two days"),
        ("A 😀👩‍👩‍👧 moves to Paris now", Peak(4, 4), "Paris"),
        ("富士山は高い山", Peak(0, 2), "富士山"),
        ("אני גר בירושלים", Peak(3, 4), "גר"),
        ("Cafe\u0301 Noe\u0308l opens", Peak(1, 1), "Noe\u0308l"),
    ],
)
def test_the_answer_is_cut_from_the_context_as_it_was_sent(
    context: str, peak: Peak, answer: str
) -> None:
    result = results(answered(packaged_tokenizer(), context, [peak]))

    assert result["answer"] == answer
    assert result["answer"] == context[result["start"] : result["end"]]
    assert result["score"] > 0.9


def test_an_answer_within_a_word_has_the_whole_word_also_across_windows() -> None:
    context = "one two three four five six seven embeddings nine ten eleven"
    peak = [Peak(9, 10)]  # ##ding ##s of em ##bed ##ding ##s
    assert packaged_tokenizer().backend.encode(context).tokens[8:12][2:] == ["##ding", "##s"]

    for limit in (64, 14, 15, 16):  # the small ones divide the word
        tokenizer = packaged_tokenizer(limit)
        for stride in (0, 2):
            result = results(answered(tokenizer, context, peak, doc_stride=stride))
            assert result["answer"] == "embeddings"
        part = results(answered(tokenizer, context, peak, align_to_words=False))
        assert part["answer"] == "dings"


def test_equal_answers_of_a_window_add_up_whatever_their_case() -> None:
    peaks = [Peak(0, 0), Peak(2, 2, 8.3), Peak(4, 4)]
    paris, rome, *_ = results(
        answered(packaged_tokenizer(), "Paris or Rome or PARIS", peaks, top_k=3, max_answer_len=1)
    )
    powers = np.exp([8.0, 8.3, 8.0, 0.0, 0.0, 0.0])
    scores = (powers / powers.sum()) ** 2

    assert (rome["answer"], rome["score"]) == ("Rome", pytest.approx(scores[1], abs=TOLERANCE))
    assert (paris["answer"], paris["start"]) == ("Paris", 0)
    assert paris["score"] == pytest.approx(2 * scores[0], abs=TOLERANCE)


def test_an_answer_in_several_windows_has_its_best_score_and_place() -> None:
    filler = "one two three four five six seven eight nine ten"
    context = f"Paris {filler} {filler} PARIS {filler} paris {filler}"
    tokenizer = packaged_tokenizer(16)
    one, both = (
        results(answered(tokenizer, context, peaks, doc_stride=6))
        for peaks in ([Peak(21, 21)], [Peak(0, 0, 4.0), Peak(21, 21), Peak(32, 32, 4.0)])
    )

    assert one == both
    assert one["answer"] == "PARIS"
    assert 0.9 < one["score"] <= 1.0


def test_a_sum_over_windows_has_the_first_place_and_a_confidence_of_at_most_1() -> None:
    filler = "one two three four five six seven eight nine ten"
    prediction = answered(
        packaged_tokenizer(16),
        f"Paris {filler} {filler} PARIS",
        [Peak(0, 0, 4.0), Peak(21, 21)],
        doc_stride=6,
        window_merge="sum",
    )

    assert isinstance(prediction, Prediction)
    assert results(prediction)["answer"] == "Paris"
    assert results(prediction)["score"] > prediction.confidence == 1.0


@pytest.mark.parametrize("limit", [64, 16])
def test_no_answer_competes_only_if_it_is_wanted(limit: int) -> None:
    tokenizer = packaged_tokenizer(limit)
    context = "The battery lasts two days and the screen is fine, but the keyboard is broken."
    peaks = [Peak(1, 1, 5.0)]
    none = {"start": 0, "end": 0, "answer": ""}

    for null, best in ((3.0, "battery"), (8.0, "")):
        given = answered(tokenizer, context, peaks, null=null, handle_impossible_answer=True)
        assert results(given)["answer"] == best
        assert isinstance(given, Prediction)
        assert given.confidence == results(given)["score"]
        without = answered(tokenizer, context, peaks, null=null, top_k=50)
        assert "" not in [one["answer"] for one in results(without)]
        ranked = results(
            answered(tokenizer, context, peaks, null=null, handle_impossible_answer=True, top_k=2)
        )
        assert {tuple(sorted(none.items()))} <= {
            tuple(sorted((key, value) for key, value in one.items() if key != "score"))
            for one in ranked
        }


def test_the_score_of_no_answer_is_that_of_the_window_where_it_is_least_likely() -> None:
    context = "one two three four five six seven eight nine ten Paris"
    peaks = [Peak(10, 10, 9.0)]
    best, none = results(
        answered(
            packaged_tokenizer(12),
            context,
            peaks,
            null=7.0,
            handle_impossible_answer=True,
            top_k=2,
        )
    )

    assert best["answer"] == "Paris"
    assert none["answer"] == ""
    assert none["score"] < 0.05


def test_answers_are_few_where_a_context_is_short() -> None:
    found = results(answered(packaged_tokenizer(), "one two three", [], top_k=100))

    assert sorted(one["answer"] for one in found) == [
        "one",
        "one two",
        "one two three",
        "three",
        "two",
        "two three",
    ]
    (only,) = results(answered(packaged_tokenizer(), "one", [], top_k=2))
    assert (only["start"], only["end"]) == (0, 3)


def blank_tokenizer() -> TextTokenizer:
    """A tokeniser whose tokens begin with a blank, without a token before both texts."""
    words = ["<unk>", "</s>", "▁", "▁in", "▁Paris", "▁who", "▁is", "▁it"]
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B:1 </s>:1", special_tokens=[("</s>", 1)]
    )
    return TextTokenizer(tokenizer, max_length=64, pad_id=0)


@pytest.mark.parametrize("align", [False, True])
def test_an_answer_has_no_blanks_around_it(align: bool) -> None:
    tokenizer = blank_tokenizer()
    peaks = [Peak(1, 1)]
    assert tokenizer.backend.encode("in Paris", add_special_tokens=False).offsets[1] == (2, 8)

    result = results(answered(tokenizer, "in Paris", peaks, align_to_words=align))
    assert (result["answer"], result["start"], result["end"]) == ("Paris", 3, 8)
    blank = results(answered(tokenizer, "in  Paris", [Peak(1, 1)], top_k=9, align_to_words=align))
    assert "" not in [one["answer"] for one in blank]


def test_a_model_without_a_token_before_both_texts_always_answers() -> None:
    result = results(
        answered(blank_tokenizer(), "in Paris", [], null=50.0, handle_impossible_answer=True)
    )

    assert result["answer"] != ""
    assert result["score"] == 0.25


@pytest.mark.parametrize(("precision", "score"), [("f32", 0.9751), ("f16", 0.975), ("bf16", 0.98)])
def test_scores_have_the_digits_that_the_precision_supports(precision: str, score: float) -> None:
    found = answered(packaged_tokenizer(), "in Paris", [Peak(1, 1, 5.06)], precision=precision)

    assert results(found)["score"] == score


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"top_k": 0}, "top_k"),
        ({"max_answer_len": 0}, "max_answer_len"),
        ({"doc_stride": -1}, "doc_stride"),
        ({"max_seq_len": 7}, "max_seq_len"),
        ({"topk": 2}, "did you mean top_k?"),
    ],
)
def test_impossible_parameters_are_refused(parameters: dict[str, Any], message: str) -> None:
    task = QuestionAnswering(Head(), precision="f32")

    with pytest.raises(ParametersRefused) as refusal:
        checked_parameters(task, parameters)
    assert message in str(refusal.value)


def test_defaults_are_those_of_the_pipeline_of_transformers_but_for_scores_above_1() -> None:
    assert AnswerParameters().model_dump() == {
        "top_k": 1,
        "doc_stride": 128,
        "max_answer_len": 15,
        "max_seq_len": 384,
        "max_question_len": 64,
        "handle_impossible_answer": False,
        "align_to_words": True,
        "window_merge": "max",
    }


def test_two_answers_agree_where_place_and_text_are_equal_and_the_score_is_near() -> None:
    agreement = task_type(TASK).agreement
    answer = {"score": 0.8, "start": 3, "end": 8, "answer": "Paris"}
    near, other = {**answer, "score": 0.805}, {**answer, "start": 9, "end": 14}

    assert agreement.difference(near, answer, TOLERANCES["f32"]) is None
    assert agreement.difference({**answer, "score": 0.9}, answer, TOLERANCES["f32"])
    assert agreement.difference(other, answer, TOLERANCES["f32"])
    assert agreement.same_best(near, answer, TOLERANCES["f32"])
    assert not agreement.same_best(other, answer, TOLERANCES["f32"])
