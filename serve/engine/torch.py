"""The torch engine: batches on a GPU, and on a CPU where OpenVINO is unavailable.

Precision, lanes and threads are decided by ``choice``.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import torch
from numpy.typing import NDArray

from serve.engine.lanes import Lanes
from serve.engine.machine import processor_name
from serve.engine.padding import Arrays, Batch, BatchSettings, infer_padded, pad
from serve.engine.protocol import Inferred, Item
from serve.errors import EngineUnavailable
from serve.module import vocabulary_size

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
Stream = torch.cuda.Stream | None
DEFAULT_BATCHES = BatchSettings()


class TorchEngine:
    """A torch module in inference mode; safe to call from several threads at once.

    On a GPU each lane has its own CUDA stream: while one lane computes, the next copies its
    batch in or its answer out, and waiting for one never drains the other.
    """

    name = "torch"

    def __init__(
        self,
        module: torch.nn.Module,
        *,
        precision: str,
        lanes: int = 1,
        threads: int = 1,
        device: str = "cpu",
        batches: BatchSettings = DEFAULT_BATCHES,
    ) -> None:
        """Move the module to the device.

        Args:
            module: Owned by the engine from here on.
            precision: ``f32``, ``bf16`` or ``f16``.
            lanes: Batches in progress at once; on a CPU all of them share ``threads``.
            threads: Cores of one batch; ``torch.set_num_threads``, for the whole process.
            device: ``cpu`` or ``cuda``.
            batches: How items are padded and grouped.
        Raises:
            EngineUnavailable: The module does not fit on the device. Not retriable.
        """
        self.precision = precision
        self._batches = batches
        self._device = torch.device(device)
        try:
            self._module = module.eval().to(self._device, DTYPES[precision])
        except RuntimeError as exc:
            raise EngineUnavailable(f"the model cannot be moved to {device}: {exc}") from exc
        on_gpu = self._device.type == "cuda"
        self.device = torch.cuda.get_device_name() if on_gpu else processor_name()
        if not on_gpu:
            torch.set_num_threads(threads)
        self._lanes = Lanes(
            [self._stream() for _ in range(lanes)],
            self._compute,
            at_a_time=lanes,
            vocabulary_size=vocabulary_size(module),
        )

    def infer(self, items: Sequence[Item]) -> Inferred:
        """Compute items in padded batches, several at once on a GPU; see ``Engine.infer``."""
        return infer_padded(items, self._batches, self._lanes.run)

    def warm_up(self, item: Item) -> None:
        """Compute an item alone in every lane; see ``Engine.warm_up``."""
        self._lanes.run_everywhere(pad([item], self._batches.pad_id))

    def close(self) -> None:
        """Free the streams; calls in progress end first."""
        self._lanes.close()

    def _stream(self) -> Stream:
        if self._device.type == "cpu":
            return None
        return torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]

    def _compute(self, stream: Stream, batch: Batch) -> Arrays:
        with torch.inference_mode(), torch.cuda.stream(stream) if stream else nullcontext():
            outputs = self._module(*map(self._to_device, batch.inputs))
            outputs = outputs if isinstance(outputs, tuple) else (outputs,)
            return tuple(_to_host(output.float(), stream) for output in outputs)

    def _to_device(self, values: NDArray[np.int64]) -> torch.Tensor:
        host = torch.from_numpy(values)
        if self._device.type == "cpu":
            return host
        # Only copies from pinned memory run while the other lanes compute.
        return host.pin_memory().to(self._device, non_blocking=True)


def _to_host(output: torch.Tensor, stream: Stream) -> NDArray[np.float32]:
    if stream is None:
        values: NDArray[np.float32] = output.numpy()
        return values
    host = torch.empty(output.shape, dtype=output.dtype, pin_memory=True)
    host.copy_(output, non_blocking=True)
    stream.synchronize()
    # Copied out of pinned memory, which is scarce and which the next batch reuses.
    return np.array(host.numpy())
