"""Settings of a sentence-transformers directory; unsupported ones are refused by name.

Follows the library sentence-transformers: which file applies, what a missing setting means.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from safetensors.torch import load_file
from torch import Tensor

from serve.artifact import CONFIG_FILE, WEIGHTS_FILE
from serve.checkpoint import library, parse_json, read_json, require_downloaded
from serve.embedding import EmbeddingHead, Layer, Pooling
from serve.errors import ArtifactError, ArtifactMissing
from serve.pooling import ACTIVATIONS
from serve.task import ImportedHead, Source
from serve.tokenizer_import import count_tokens

MODULES_FILE = "modules.json"
MODEL_FILE = "config_sentence_transformers.json"
# The first file with any settings applies.
TRANSFORMER_FILES = [
    f"sentence_{family}_config.json"
    for family in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
]
# Switches of older releases, in the order in which their vectors are concatenated.
SWITCHES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
POOLINGS: dict[str, Any] = {
    "cls": "cls",
    "max": "max",
    "mean": "mean",
    "mean_sqrt_len_tokens": "mean-sqrt-len",
    "weightedmean": "weighted-mean",
    "lasttoken": "last-token",
}
# Settings that do not change the result, or only how fast it is computed.
WITHOUT_EFFECT = frozenset(("query_length", "document_length", "query_expansion", "unpad_inputs"))
MODEL_OPTIONS = frozenset(
    (
        "add_pooling_layer",
        "attn_implementation",
        "dtype",
        "low_cpu_mem_usage",
        "torch_dtype",
        "trust_remote_code",
        "use_safetensors",
    )
)
# Settings with the only value that is supported.
ONLY_VALUES: dict[str, Any] = {
    "transformer_task": "feature-extraction",
    "module_output_name": "token_embeddings",
    "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
    "processing_kwargs": {},
    "config_kwargs": {},
    "tokenizer_name_or_path": None,
}
OLD_NAMES = {
    "model_args": "model_kwargs",
    "tokenizer_args": "processor_kwargs",
    "tokenizer_kwargs": "processor_kwargs",
    "config_args": "config_kwargs",
}
NEXT = "choose another model, or set a pooling yourself, which omits the layers after it"

Value = TypeVar("Value")


class TextPreparation(NamedTuple):
    """Preparation of texts, in addition to the files of the tokeniser.

    Attributes:
        lower_case: Whether texts are converted to lower case first.
        options: Tokeniser options for ``from_pretrained``.
    """

    lower_case: bool = False
    options: Mapping[str, Any] = MappingProxyType({})


def transformer_directory(directory: Path) -> Path:
    """Return the folder with the transformers files: the source itself, or one in it."""
    for module in _modules(directory):
        if _kind(module) == "Transformer":
            return directory / str(module["path"])
    return directory


def text_preparation(directory: Path, network: Path) -> TextPreparation:
    """Return how sentence-transformers prepares texts; without modules, as transformers does.

    Args:
        network: Folder with the files of the transformer.
    Raises:
        ArtifactError: A setting is not supported; the message names it. Not retriable.
    """
    if not _modules(directory):
        return TextPreparation()
    files = [network / name for name in TRANSFORMER_FILES]
    file, settings = next(((f, s) for f in files if (s := read_json(f))), (files[0], {}))
    settings = {OLD_NAMES.get(key, key): value for key, value in settings.items()}
    for key, value in settings.items():
        _require_served(file, key, value)
    options = dict(
        _typed(settings.get("processor_kwargs"), dict, f"{file}: processor_kwargs") or {}
    )
    options.pop("trust_remote_code", None)
    longest = _typed(settings.get("max_seq_length"), int, f"{file}: max_seq_length")
    if longest is not None:
        if longest < 1:
            raise ArtifactError(f"{file}: max_seq_length is {longest}; correct it")
        options.setdefault("model_max_length", longest)
    return TextPreparation(
        lower_case=bool(
            _typed(settings.get("do_lower_case"), bool, f"{file}: do_lower_case") or False
        ),
        options=options,
    )


def embedding_head(source: Source) -> ImportedHead:
    """Return pooling, layers and prompts of a source; a pooling that the user gave replaces them.

    Raises:
        ArtifactError: A module or setting is not supported; it is named. Not retriable.
    """
    prompts: dict[str, str] = {}
    default: str | None = None
    if _modules(source.directory):
        prompts, default = source_prompts(source.directory)
    own: dict[str, Any] = {"prompts": prompts, "default_prompt_name": default}
    weights: Mapping[str, Tensor] = {}
    if "pooling" not in source.settings:
        prompt = prompts[default] if default else ""
        tokens = count_tokens(source.tokenizer, prompt)
        own["pooling"], weights = source_pooling(source.directory, prompt_tokens=tokens)
    return ImportedHead(EmbeddingHead.model_validate({**own, **source.settings}), weights)


def source_pooling(directory: Path, *, prompt_tokens: int = 0) -> tuple[Pooling, dict[str, Tensor]]:
    """Return the pooling of a source, and the weights of the layers after it.

    Args:
        prompt_tokens: Tokens of the prompt before every text, which some poolings skip.
    Returns:
        Without modules, the normalised mean, or the last token for a causal language model.
    Raises:
        ArtifactError: A module or setting is not supported; it is named. Not retriable.
    """
    modules = _modules(directory)
    if not modules:
        return _plain_pooling(directory), {}
    kinds = [_kind(module) for module in modules]
    if kinds[:2] != ["Transformer", "Pooling"]:
        raise ArtifactError(
            f"{directory / MODULES_FILE}: has the modules {', '.join(kinds)}, but only a "
            f"Transformer followed by a Pooling is supported; {NEXT}"
        )
    pooling = _pooling(directory / str(modules[1]["path"]), prompt_tokens)
    layers: list[Layer] = []
    weights: dict[str, Tensor] = {}
    for module, kind in zip(modules[2:], kinds[2:], strict=True):
        layer, found = _layer(directory / str(module["path"]), kind)
        if layer is not None:
            weights |= {f"{len(layers)}.{name}": tensor for name, tensor in found.items()}
            layers.append(layer)
    normalize = bool(layers) and layers[-1].kind == "normalize"
    changes = {
        "layers": tuple(layers[:-1] if normalize else layers),
        "normalize": normalize,
        "dimensions": _dimensions(directory / MODEL_FILE),
    }
    return pooling.model_copy(update=changes), weights


def _modules(directory: Path) -> list[dict[str, Any]]:
    file = directory / MODULES_FILE
    if not file.is_file():
        return []
    modules = parse_json(file)
    if not isinstance(modules, list) or not all(map(_is_module, modules)):
        raise ArtifactError(f"{file}: must list modules with type and path; download it again")
    for module in modules:
        if not str(module["type"]).startswith("sentence_transformers."):
            raise ArtifactError(
                f"{file}: the module {module['type']} is custom code, which is not run; "
                "choose another model"
            )
        if (directory / str(module["path"])).is_dir():
            require_downloaded(directory / str(module["path"]))
    return modules


def _is_module(entry: object) -> bool:
    return isinstance(entry, dict) and {"type", "path"} <= entry.keys()


def _kind(module: dict[str, Any]) -> str:
    return str(module["type"]).rpartition(".")[2]


def _require_served(file: Path, key: str, value: Any) -> None:
    if key in WITHOUT_EFFECT or key in ("do_lower_case", "max_seq_length", "processor_kwargs"):
        return
    if key in ONLY_VALUES:
        if isinstance(value, dict):
            value = {name: kept for name, kept in value.items() if name != "trust_remote_code"}
        is_served = (value or None) == (ONLY_VALUES[key] or None)
    else:
        is_served = key == "model_kwargs" and not set(value or {}) - MODEL_OPTIONS
    if not is_served:
        raise ArtifactError(
            f"{file}: {key} is {value!r}, which is not supported; choose another model"
        )


def source_prompts(directory: Path) -> tuple[dict[str, str], str | None]:
    """Return the prompts of a source by name, and the name of the default; None for no prompt.

    Raises:
        ArtifactError: The prompts contradict each other. Not retriable.
    """
    file = directory / MODEL_FILE
    settings = read_json(file)
    kind = settings.get("model_type", "SentenceTransformer")
    if kind != "SentenceTransformer":
        raise ArtifactError(f"{file}: the model is a {kind}; choose a SentenceTransformer")
    found = _typed(settings.get("prompts"), dict, f"{file}: prompts") or {}
    # sentence-transformers always defines these two, empty.
    prompts = {
        str(name): _typed(prompt, str, f"{file}: the prompt {name!r}") or ""
        for name, prompt in ({"query": None, "document": None} | found).items()
    }
    name = settings.get("default_prompt_name")
    if name is not None and name not in prompts:
        raise ArtifactError(
            f"{file}: default_prompt_name is {name!r}, but the prompts are "
            f"{', '.join(map(repr, prompts))}; correct the file"
        )
    return {name: prompt for name, prompt in prompts.items() if found}, name if found else None


def _dimensions(file: Path) -> int | None:
    wanted = _typed(read_json(file).get("truncate_dim"), int, f"{file}: truncate_dim")
    if wanted is not None and wanted < 1:
        raise ArtifactError(f"{file}: truncate_dim is {wanted}; correct it")
    return wanted


def _plain_pooling(directory: Path) -> Pooling:
    config = read_json(directory / CONFIG_FILE)
    names = config.get("architectures") or [""]
    is_causal = str(names[0]).endswith("ForCausalLM") and config.get("is_causal", True)
    return Pooling(mode="last-token" if is_causal else "mean")


def _pooling(folder: Path, prompt_tokens: int) -> Pooling:
    file = folder / CONFIG_FILE
    if not file.is_file():
        raise ArtifactMissing(f"{file} is missing; download the model again")
    config = read_json(file)
    known = {"word_embedding_dimension", "embedding_dimension", "pooling_mode", "include_prompt"}
    unknown = sorted(config.keys() - known - SWITCHES.keys())
    found = config.get("pooling_mode")
    if found is None:
        found = [mode for key, mode in SWITCHES.items() if config.get(key)] or ["mean"]
    modes = [found] if isinstance(found, str) else found
    if unknown or not isinstance(modes, list) or not modes or set(modes) - POOLINGS.keys():
        raise ArtifactError(
            f"{file}: the pooling {', '.join(unknown) or found!r} is not supported; {NEXT}"
        )
    first, *others = (POOLINGS[mode] for mode in modes)
    skip = 0 if config.get("include_prompt", True) else prompt_tokens
    return Pooling(mode=first, also=tuple(others), skip=skip)


def skips_prompts(directory: Path) -> bool:
    """Return whether the pooling of a source leaves out the tokens of the prompt."""
    folders = [m["path"] for m in _modules(directory) if _kind(m) == "Pooling"]
    configs = (read_json(directory / str(folder) / CONFIG_FILE) for folder in folders)
    return not all(config.get("include_prompt", True) for config in configs)


def _layer(folder: Path, kind: str) -> tuple[Layer | None, dict[str, Tensor]]:
    if kind == "Dropout":  # has no effect after training
        return None, {}
    config = read_json(folder / CONFIG_FILE)
    for key in ("module_input_name", "module_output_name"):
        if config.get(key) not in (None, "sentence_embedding"):
            raise _refused(folder, f"{key} is {config[key]!r}")
    if kind == "Normalize":
        return Layer(kind="normalize"), {}
    if kind == "LayerNorm":
        return Layer(kind="layer-norm"), _weights(folder, "norm", bias=True)
    if kind != "Dense":
        raise _refused(folder.parent / MODULES_FILE, f"it has the module {kind}")
    if config.get("use_residual"):
        raise _refused(folder, "use_residual is set")
    path = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    name: Any = path.rpartition(".")[2].lower()
    if not path.startswith("torch.nn.") or name not in ACTIVATIONS:
        raise _refused(folder, f"activation_function is {path}")
    weights = _weights(folder, "linear", bias=bool(config.get("bias", True)))
    return Layer(kind="dense", activation=name), weights


def _refused(place: Path, what: str) -> ArtifactError:
    return ArtifactError(f"{place}: {what}, which is not supported; {NEXT}")


def _weights(folder: Path, name: str, *, bias: bool) -> dict[str, Tensor]:
    file = folder / WEIGHTS_FILE
    if not file.is_file():
        raise ArtifactMissing(
            f"{file} is missing, and weights are read only from safetensors; download it, or save "
            "the model again with sentence-transformers"
        )
    with library(file, "cannot be read; download it again"):
        found = load_file(file)
    wanted = {f"{name}.weight": "weight"} | ({f"{name}.bias": "bias"} if bias else {})
    if found.keys() != wanted.keys():
        raise ArtifactError(
            f"{file}: contains {', '.join(found) or 'nothing'}, but must contain "
            f"{', '.join(wanted)}; download the model again"
        )
    return {short: found[long].float() for long, short in wanted.items()}


def _typed(value: Any, kind: type[Value], place: str) -> Value | None:
    if value is None or (isinstance(value, kind) and (kind is bool or not isinstance(value, bool))):
        return value
    raise ArtifactError(f"{place} is {value!r}, but must be a {kind.__name__}; correct it")
