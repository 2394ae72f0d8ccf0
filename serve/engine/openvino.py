"""The OpenVINO engine: a torch module converted once, compiled once, run in streams.

The only file that imports openvino. Precision, streams and threads are decided by ``choice``.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from serve.engine.cache import cached
from serve.engine.lanes import Lanes
from serve.engine.padding import Arrays, Batch, BatchSettings, infer_padded, pad
from serve.engine.protocol import Inferred, Item
from serve.errors import EngineUnavailable, first_line

# Importing openvino sends telemetry and writes an id into the home directory unless its
# telemetry package cannot be imported; no environment variable turns that off.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import openvino as ov  # noqa: E402
from openvino.frontend import GeneralFailure, OpConversionFailure  # noqa: E402
from openvino.tools.ovc.error import Error as ConversionError  # noqa: E402

GRAPH_FILE = "graph.xml"
VOCABULARY = ["bertstream", "vocabulary_size"]
# Requests beyond the streams wait inside OpenVINO, so that a stream that ends one batch starts
# the next without waiting for Python.
SPARE_REQUESTS = 1
# Errors of the graph reader and the compiler; they have no common base class.
REFUSALS = (RuntimeError, GeneralFailure, OpConversionFailure, ConversionError)

logger = logging.getLogger(__name__)


def processor_capabilities() -> frozenset[str]:
    """Return what the processor computes in hardware: FP32, BF16, INT8 and others."""
    return frozenset(ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


class OpenVinoEngine:
    """A compiled model on the CPU; safe to call from several threads at once."""

    name = "openvino"

    def __init__(
        self,
        module_factory: Callable[[], Any],
        *,
        precision: str,
        streams: int,
        threads: int,
        cache_dir: Path | None,
        digest: str,
        device: str,
        batches: BatchSettings,
        token_types: bool,
    ) -> None:
        """Convert the module (or read it from the cache) and compile it.

        Args:
            module_factory: Builds the torch module; called only where the cache lacks the
                graph, so a warm start needs no torch.
            precision: ``f32`` or ``bf16``. A processor with neither bf16 nor AVX-512 computes f32
                anyway, and ``self.precision`` reports it.
            streams: Batches computed at once.
            threads: Cores shared by the streams.
            cache_dir: Directory for converted graphs; None disables the cache.
            digest: Identifies everything the graph depends on: the model's bytes and the version
                of the code that builds the module.
            device: Name of the processor.
            batches: How items are padded and grouped.
            token_types: Whether the module takes token types.
        Raises:
            EngineUnavailable: OpenVINO cannot convert or compile the module. Not retriable.
        """
        core = ov.Core()
        try:
            graph = _load_graph(
                core,
                lambda: _convert(module_factory(), inputs=3 if token_types else 2),
                cache_dir=cache_dir,
                digest=digest,
            )
            compiled = core.compile_model(graph, "CPU", _options(precision, streams, threads))
        except REFUSALS as exc:
            raise EngineUnavailable(f"OpenVINO cannot compile the model: {exc}") from exc
        self.precision = _computed_in(compiled)
        self.device = device
        self._batches = batches
        self._lanes = Lanes(
            [compiled.create_infer_request() for _ in range(streams + SPARE_REQUESTS)],
            _compute,
            at_a_time=streams,
            vocabulary_size=int(graph.get_rt_info(VOCABULARY).value),
        )

    def infer(self, items: Sequence[Item]) -> Inferred:
        """Compute items in padded batches, several at once; see ``Engine.infer``."""
        return infer_padded(items, self._batches, self._lanes.run)

    def warm_up(self, item: Item) -> None:
        """Compute an item alone in every request; see ``Engine.warm_up``."""
        self._lanes.run_everywhere(pad([item], self._batches.pad_id))

    def close(self) -> None:
        """Free the infer requests; calls in progress end first."""
        self._lanes.close()


def _options(precision: str, streams: int, threads: int) -> dict[str, Any]:
    return {
        "PERFORMANCE_HINT": "THROUGHPUT",
        "NUM_STREAMS": streams,
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": precision,
        # Replicas on one machine are not coordinated: with pinning, all would use the first
        # cores.
        "ENABLE_CPU_PINNING": False,
    }


def _computed_in(compiled: Any) -> str:
    """Return the compiled precision: the hint is ignored where the processor lacks it."""
    name: str = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    return name


def _compute(request: Any, batch: Batch) -> Arrays:
    # Not infer(): with one stream of one thread it swallows the errors of a batch (2026.4) and
    # returns an earlier batch's numbers.
    request.start_async(dict(enumerate(batch.inputs)), share_inputs=True)
    request.wait()
    return tuple(tensor.data.copy() for tensor in request.output_tensors)


def _load_graph(
    core: Any, convert: Callable[[], Any], *, cache_dir: Path | None, digest: str
) -> Any:
    def build(directory: Path) -> None:
        # In float32: the default would round the weights to half precision.
        ov.save_model(convert(), directory / GRAPH_FILE, compress_to_fp16=False)

    if cache_dir is None:
        return convert()
    release = ov.__version__.split("-")[0]
    try:
        home = cached(cache_dir, f"openvino-{release}-{digest}", build)
    except OSError as exc:
        logger.warning("cannot cache compiled models in %s: %s", cache_dir, exc)
        return convert()
    return core.read_model(home / GRAPH_FILE)


def _convert(module: Any, *, inputs: int) -> Any:
    """Convert the module to a graph with dynamic B and T for each of its inputs."""
    import torch

    from serve.module import vocabulary_size

    # The exporter treats a dimension of 1 as constant, and one tensor passed twice as one input.
    arguments = tuple(torch.ones((2, 16), dtype=torch.int64) for _ in range(inputs))
    either = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    try:
        with torch.no_grad():
            program = torch.export.export(
                module.eval(), arguments, dynamic_shapes=(either,) * inputs
            )
        graph = ov.convert_model(program)
    except Exception as exc:  # the model's own code runs here and may raise anything
        what = first_line(exc) or type(exc).__name__
        raise EngineUnavailable(f"OpenVINO cannot convert the model: {what}") from exc
    graph.set_rt_info(vocabulary_size(module), VOCABULARY)
    return graph
