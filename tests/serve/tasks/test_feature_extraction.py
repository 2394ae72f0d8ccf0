from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from numpy.typing import NDArray

from serve.artifact import GOLDEN_FILE, Artifact, seal
from serve.contract import Answer, CallOptions
from serve.embedding import EmbeddingHead, Pooling
from serve.errors import ArtifactError, ParametersRefused
from serve.settings import EngineSettings, ModelSettings
from serve.task import Computed, Encoded, Passage, Prediction, Window
from serve.tasks.feature_extraction import FeatureExtraction, FeatureParameters
from tests.serve.tiny import TEXTS, MakeSource

HEAD = EmbeddingHead(
    pooling=Pooling(normalize=False),
    prompts={"query": "Query: ", "passage": "Passage: "},
    default_prompt_name="query",
)
VECTORS = np.random.default_rng(0).normal(size=(50, 16)).astype(np.float32)
RANGES = np.stack([VECTORS[:30].min(axis=0), VECTORS[:30].max(axis=0)])
ODD = "Größenwahn 😀 ok, 漢字 naïve"


def window(vector: NDArray[np.float32], tokens: int = 3) -> Window:
    return Window(Encoded(np.zeros(tokens, dtype=np.int32)), (vector,))


def record(*windows: Window) -> Computed:
    return Computed(("a",), [Passage("a")], [windows])


def predictions(
    records: Sequence[Computed], head: EmbeddingHead = HEAD, **parameters: Any
) -> list[Any]:
    checked = FeatureParameters.model_validate(parameters)
    found = FeatureExtraction(head, precision="f32").predictions(records, checked)
    return [one.result for one in found if isinstance(one, Prediction)]


def vectors_of(outputs: NDArray[np.float32], **parameters: Any) -> NDArray[Any]:
    found = predictions([record(window(row)) for row in outputs], **parameters)
    return np.array([orjson.loads(result) for result in found])


def test_embedding_is_a_list_of_rounded_numbers() -> None:
    outputs = np.array([0.123456, -0.5, -1e-9], dtype=np.float32)
    (prediction,) = FeatureExtraction(HEAD, precision="f32").predictions(
        [record(window(outputs))], FeatureParameters()
    )

    assert prediction == Prediction(b"[0.1235,-0.5,0.0]", label=None, confidence=None)


def test_each_item_has_its_embedding() -> None:
    outputs = np.random.default_rng(0).normal(size=(5, 384)).astype(np.float32)

    np.testing.assert_allclose(vectors_of(outputs), outputs, atol=5.1e-5)


def test_first_dimensions_are_kept_and_scaled_afterwards() -> None:
    found = vectors_of(VECTORS, dimensions=4, normalize=True)

    kept = VECTORS[:, :4]
    expected = kept / np.linalg.norm(kept, axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=5.1e-5)
    assert vectors_of(VECTORS, dimensions=99).shape == VECTORS.shape
    assert vectors_of(np.zeros((1, 3), dtype=np.float32), normalize=True).tolist() == [[0, 0, 0]]


@pytest.fixture(scope="module")
def quantize() -> Callable[..., NDArray[Any]]:
    from sentence_transformers.util.quantization import quantize_embeddings

    return quantize_embeddings  # type: ignore[no-any-return]


@pytest.mark.model
@pytest.mark.parametrize("precision", ["binary", "ubinary"])
@pytest.mark.parametrize("dimensions", [None, 8, 12])
def test_bits_are_those_of_sentence_transformers(
    quantize: Callable[..., NDArray[Any]], precision: str, dimensions: int | None
) -> None:
    # A number of exactly 0 has no bit.
    vectors = np.concatenate([VECTORS, np.zeros((1, 16), dtype=np.float32)])
    found = vectors_of(vectors, precision=precision, dimensions=dimensions)
    np.testing.assert_array_equal(found, quantize(vectors[:, :dimensions], precision=precision))


@pytest.mark.model
@pytest.mark.parametrize("precision", ["int8", "uint8"])
@pytest.mark.parametrize("dimensions", [None, 8])
def test_small_integers_are_those_of_sentence_transformers(
    quantize: Callable[..., NDArray[Any]], precision: str, dimensions: int | None
) -> None:
    # Some numbers are outside the ranges, and one dimension never varies.
    ranges = RANGES.copy()
    ranges[:, 3] = 0.25
    found = vectors_of(VECTORS, precision=precision, ranges=ranges.tolist(), dimensions=dimensions)
    expected = quantize(VECTORS[:, :dimensions], precision=precision, ranges=ranges[:, :dimensions])
    np.testing.assert_array_equal(found, expected)
    assert found.min() == (-128 if precision == "int8" else 0)
    assert found.max() == (127 if precision == "int8" else 255)


def test_small_integers_without_ranges_keep_the_direction() -> None:
    found = vectors_of(VECTORS, precision="int8")

    assert np.abs(found).max(axis=1).tolist() == [127] * len(VECTORS)
    cosines = (found * VECTORS).sum(axis=1)
    cosines = cosines / np.linalg.norm(found, axis=1) / np.linalg.norm(VECTORS, axis=1)
    assert cosines.min() > 0.9999
    assert vectors_of(np.zeros((1, 3), dtype=np.float32), precision="int8").tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("count", [3, 17])
def test_ranges_of_another_model_are_refused(count: int) -> None:
    ranges = [[0.0] * count, [1.0] * count]
    with pytest.raises(ParametersRefused, match=f"ranges has {count} values, .* 16 dimensions"):
        vectors_of(VECTORS, precision="uint8", ranges=ranges)


def test_ranges_may_be_those_of_the_dimensions_that_are_kept() -> None:
    of_all = vectors_of(VECTORS, precision="uint8", ranges=RANGES.tolist(), dimensions=8)
    of_kept = vectors_of(VECTORS, precision="uint8", ranges=RANGES[:, :8].tolist(), dimensions=8)
    np.testing.assert_array_equal(of_all, of_kept)


def test_windows_count_by_their_tokens_and_are_scaled_again() -> None:
    first, second = np.eye(2, dtype=np.float32)
    several = record(window(first, tokens=30), window(second, tokens=10))
    alone = record(window(np.array([0.6, 0.8], dtype=np.float32)))

    assert predictions([several]) == [b"[0.75,0.25]"]
    scaled = EmbeddingHead(pooling=Pooling(normalize=True))
    assert predictions([several, alone], scaled) == [b"[0.9487,0.3162]", b"[0.6,0.8]"]


def passages(head: EmbeddingHead, **parameters: Any) -> object:
    task = FeatureExtraction(head, precision="f32")
    checked = FeatureParameters.model_validate(parameters)
    task.check(checked)
    return task.passages(("fine day",), checked)


def test_prompt_is_prepended() -> None:
    assert passages(HEAD) == [Passage("Query: fine day")]
    assert passages(HEAD, prompt_name="passage") == [Passage("Passage: fine day")]
    assert passages(HEAD, prompt="> ", prompt_name="passage") == [Passage("> fine day")]
    assert passages(HEAD, prompt="") == [Passage("fine day")]
    assert passages(EmbeddingHead(pooling=Pooling())) == [Passage("fine day")]


def test_prompt_whose_tokens_are_not_pooled_cannot_be_replaced() -> None:
    skipping = HEAD.model_copy(update={"pooling": Pooling(skip=3)})
    assert passages(skipping) == [Passage("Query: fine day")]
    assert passages(skipping, prompt_name="query") == [Passage("Query: fine day")]
    for parameters in ({"prompt_name": "passage"}, {"prompt": ""}):
        with pytest.raises(ValueError, match="skips the tokens of the default prompt"):
            passages(skipping, **parameters)


def test_vectors_of_tokens_are_not_quantised() -> None:
    tokens = EmbeddingHead(pooling=Pooling(), tokens=True)
    with pytest.raises(ValueError, match="use precision float32"):
        passages(tokens, precision="binary")


def settings(path: Path, kind: Any = "torch") -> ModelSettings:
    engine = EngineSettings(kind=kind, precision="f32")
    return ModelSettings(name="model", path=path, engine=engine)


def answers(path: Path, texts: Sequence[str], kind: str = "torch", **options: Any) -> list[Answer]:
    from serve.replica import Replica

    replica = Replica(settings(path, kind))
    options = {"format": "text", **options}
    reply = replica.predict([text.encode() for text in texts], CallOptions(**options))
    replica.close()
    found = [outcome for outcome in reply.outcomes if isinstance(outcome, Answer)]
    assert len(found) == len(texts)
    return found


def results(path: Path, texts: Sequence[str], **options: Any) -> list[Any]:
    return [orjson.loads(answer.result) for answer in answers(path, texts, **options)]


def with_prompts(source: Path) -> Path:
    """Add the files of sentence-transformers: the mean, scaled, and two prompts."""
    kinds = ("Transformer", "Pooling", "Normalize")
    modules = [
        {"idx": n, "name": str(n), "path": f"{n}_{kind}" if n else "", "type": kind_of(kind)}
        for n, kind in enumerate(kinds)
    ]
    mean = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}
    model = {
        "prompts": {"query": "Query: ", "passage": "The passage is: "},
        "default_prompt_name": "query",
    }
    for name, document in (
        ("modules.json", modules),
        ("config_sentence_transformers.json", model),
        ("1_Pooling/config.json", mean),
    ):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_bytes(orjson.dumps(document))
    (source / "2_Normalize").mkdir()
    return source


def kind_of(module: str) -> str:
    return f"sentence_transformers.models.{module}"


@pytest.fixture(scope="module")
def prompted(
    make_source: MakeSource, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Artifact]:
    """A source with prompts, and the same imported."""
    from serve.importing import import_model

    source = with_prompts(make_source(classifies=False))
    out = tmp_path_factory.mktemp("models") / "prompted"
    return source, import_model(str(source), out, task="feature-extraction")


@pytest.mark.model
@pytest.mark.parametrize(
    ("parameters", "options"),
    [
        ({}, {}),
        ({"prompt_name": "query"}, {"prompt_name": "query"}),
        ({"prompt_name": "passage"}, {"prompt_name": "passage"}),
        ({"prompt": "Find this: "}, {"prompt": "Find this: "}),
        ({"prompt": ""}, {"prompt": ""}),
        ({"dimensions": 8}, {"truncate_dim": 8}),
        ({"dimensions": 8, "normalize": True}, {"truncate_dim": 8, "normalize_embeddings": True}),
    ],
)
def test_parameters_have_the_meaning_that_they_have_in_sentence_transformers(
    prompted: tuple[Path, Artifact], parameters: dict[str, Any], options: dict[str, Any]
) -> None:
    from sentence_transformers import SentenceTransformer

    source, artifact = prompted
    found = results(artifact.path, TEXTS, parameters=parameters)
    wanted = SentenceTransformer(str(source), device="cpu").encode(TEXTS, **options)
    np.testing.assert_allclose(found, wanted, atol=1e-4)


@pytest.mark.model
def test_quantised_embeddings_of_a_model_are_those_of_sentence_transformers(
    prompted: tuple[Path, Artifact], quantize: Callable[..., NDArray[Any]]
) -> None:
    from sentence_transformers import SentenceTransformer

    source, artifact = prompted
    plain = SentenceTransformer(str(source), device="cpu").encode(TEXTS)
    bits = results(artifact.path, TEXTS, parameters={"precision": "binary"})
    np.testing.assert_array_equal(bits, quantize(plain, precision="binary"))
    ranges = np.stack([plain.min(axis=0), plain.max(axis=0)])
    parameters = {"precision": "int8", "ranges": ranges.tolist()}
    integers = results(artifact.path, TEXTS, parameters=parameters)
    # Sums in another order may fall on the other side of a step.
    difference = np.array(integers) - quantize(plain, precision="int8", ranges=ranges)
    assert np.abs(difference).max() <= 1


@pytest.mark.model
def test_parameter_that_the_model_cannot_have_is_refused(
    prompted: tuple[Path, Artifact],
) -> None:
    with pytest.raises(ParametersRefused, match="no prompt 'question'; the model has query, "):
        answers(prompted[1].path, ["fine"], parameters={"prompt_name": "question"})


@pytest.fixture(scope="module")
def of_tokens(make_source: MakeSource, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A tiny encoder that returns a vector for each token."""
    from serve.importing import import_model

    out = tmp_path_factory.mktemp("models") / "tokens"
    head = {"tokens": True}
    source = str(make_source(classifies=False))
    return import_model(source, out, task="feature-extraction", head=head)


@pytest.mark.model
@pytest.mark.parametrize("kind", ["torch", "openvino"])
def test_vectors_of_tokens_are_those_of_transformers(of_tokens: Artifact, kind: str) -> None:
    import torch
    from transformers import BertModel, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(of_tokens.path / "tokenizer.json"))
    encoder = BertModel.from_pretrained(of_tokens.path, add_pooling_layer=False)
    texts = [*TEXTS, ODD, "word " * 100]
    for text, found in zip(texts, results(of_tokens.path, texts, kind=kind), strict=True):
        ids = tokenizer(text, truncation=True, max_length=64).input_ids
        with torch.no_grad():
            states = encoder(torch.tensor([ids])).last_hidden_state[0].numpy()
        assert found["tokens"] == tokenizer.convert_ids_to_tokens(ids)
        np.testing.assert_allclose(found["vectors"], states, atol=1.01e-4)


@pytest.mark.model
@pytest.mark.parametrize("stride", [0, 5])
def test_tokens_of_windows_are_those_of_the_text_each_once(
    of_tokens: Artifact, stride: int
) -> None:
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(of_tokens.path / "tokenizer.json"))
    text = f"{ODD} {TEXTS[6]} not not not not " * 6
    options: dict[str, Any] = {"long_text": "window", "window_stride": stride}
    (found,) = results(of_tokens.path, [text], **options)
    assert found["tokens"] == tokenizer.convert_ids_to_tokens(tokenizer(text).input_ids)
    assert len(found["vectors"]) == len(found["tokens"])
    # The first window is the text cut.
    (cut,) = results(of_tokens.path, [text])
    assert found["vectors"][:60] == cut["vectors"][:60]
    assert results(of_tokens.path, TEXTS, **options) == results(of_tokens.path, TEXTS)


@pytest.mark.model
def test_vectors_of_tokens_are_cut_and_scaled_on_request(of_tokens: Artifact) -> None:
    (plain,) = results(of_tokens.path, ["fine day"])
    (found,) = results(
        of_tokens.path, ["fine day"], parameters={"dimensions": 4, "normalize": True}
    )
    kept = np.array(plain["vectors"])[:, :4]
    expected = kept / np.linalg.norm(kept, axis=1, keepdims=True)
    np.testing.assert_allclose(found["vectors"], expected, atol=1e-3)
    assert found["tokens"] == ["[CLS]", "fine", "day", "[SEP]"]


@pytest.mark.model
@pytest.mark.parametrize("tokens", [False, True])
def test_golden_texts_are_sealed_and_asked_at_the_start(
    make_source: MakeSource, tmp_path: Path, tokens: bool
) -> None:
    from serve.golden_texts import GoldenText
    from serve.importing import import_model
    from serve.replica import Replica

    source = with_prompts(make_source(classifies=False))
    artifact = import_model(
        str(source),
        tmp_path / "m",
        task="feature-extraction",
        head={"tokens": tokens},
        golden=[GoldenText({"text": "fine day"}), GoldenText({"text": TEXTS[1]})],
    )
    first, second = artifact.golden()
    (alone,) = results(artifact.path, ["fine day"])
    assert first.result == alone
    Replica(settings(artifact.path, "openvino")).close()

    swapped = [first, second.model_copy(update={"result": first.result})]
    lines = [orjson.dumps(one.model_dump()) for one in swapped]
    (artifact.path / GOLDEN_FILE).write_bytes(b"\n".join(lines))
    seal(artifact.path)
    with pytest.raises(ArtifactError, match="line 2 is answered differently"):
        Replica(settings(artifact.path))


@pytest.mark.model
def test_long_texts_in_windows_point_where_their_parts_point(features: Artifact) -> None:
    text = f"{TEXTS[2]} {TEXTS[1]} " * 5
    options: dict[str, Any] = {"long_text": "window", "window_stride": 8}
    (windowed,) = answers(features.path, [text], **options)
    (cut,) = answers(features.path, [text])
    assert (windowed.truncated, cut.truncated) == (False, True)
    assert windowed.tokens > cut.tokens == 64
    assert windowed.result != cut.result
    assert np.linalg.norm(orjson.loads(windowed.result)) == pytest.approx(1.0, abs=1e-3)
    short = answers(features.path, TEXTS, **options)
    assert short == answers(features.path, TEXTS)
    # Beside a long text, too.
    assert answers(features.path, [*TEXTS, text], **options)[:-1] == short
