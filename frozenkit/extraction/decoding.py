"""Images decoded and preprocessed by threads, ahead of the computing."""

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from frozenkit.errors import InputError

_PIECE = 32  # images that one thread decodes at a time


def decode_threads(workers: int | str, device_type: str) -> int:
    """How many threads decode: a CPU is busy with the network, a GPU waits for whatever the CPU decodes."""
    if workers == "auto":
        return min(16, os.cpu_count() or 2) if device_type == "cuda" else 2
    if isinstance(workers, bool) or not isinstance(workers, Integral) or workers < 1:
        raise InputError(f"`workers` must be 'auto' or a whole number of at least 1, got {workers!r}.")
    return int(workers)


def decode_batches(
    preprocess: Callable[[Any], Tensor], dataset: Any, parts: Iterable[Sequence[int]], *, workers: int = 2
) -> Iterator[Tensor]:
    """(b, 3, h, w) for each part, in order; PIL works outside Python's lock, so decoding overlaps computing.

    Args:
        preprocess: Of a `Backbone`.
        dataset: Whose ``dataset[i][0]`` is an image.
        parts: Row indices of each batch.
        workers: Threads. So much is decoded ahead that all have work, and two batches at least.
    """

    def decode(rows: Sequence[int]) -> Tensor:
        return torch.stack([preprocess(dataset[int(i)][0]) for i in rows])

    with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="frozenkit-decode") as pool:
        pending: list[list[Future[Tensor]]] = []  # batch by batch, each in pieces, which keep many threads busy
        try:
            for rows in parts:
                pending.append([pool.submit(decode, rows[i : i + _PIECE]) for i in range(0, len(rows), _PIECE)])
                if len(pending) > 2 and sum(map(len, pending)) > workers:
                    yield _joined(pending.pop(0))
            while pending:
                yield _joined(pending.pop(0))
        finally:
            for future in itertools.chain.from_iterable(pending):
                future.cancel()


def _joined(pieces: Sequence[Future[Tensor]]) -> Tensor:
    tensors = [piece.result() for piece in pieces]
    return torch.cat(tensors) if len(tensors) > 1 else tensors[0]
