"""Images decoded and preprocessed ahead of the computing."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor


def decoded(
    preprocess: Callable[[Any], Tensor], dataset: Any, parts: Iterable[Sequence[int]], *, ahead: int = 2
) -> Iterator[Tensor]:
    """(b, 3, h, w) for each part, in order; PIL works outside Python's lock, so decoding overlaps computing.

    Args:
        preprocess: Of a `Backbone`.
        dataset: Whose ``dataset[i][0]`` is a picture.
        parts: Row indices of each batch.
        ahead: Batches made before they are asked for.
    """

    def decode(rows: Sequence[int]) -> Tensor:
        return torch.stack([preprocess(dataset[int(i)][0]) for i in rows])

    with ThreadPoolExecutor(max_workers=2, thread_name_prefix="frozenkit-decode") as workers:
        pending: list[Future[Tensor]] = []
        try:
            for rows in parts:
                pending.append(workers.submit(decode, rows))
                if len(pending) > ahead:
                    yield pending.pop(0).result()
            while pending:
                yield pending.pop(0).result()
        finally:
            for future in pending:
                future.cancel()
