"""The cache against one gzip dataset with automatic chunks, and against numpy.load."""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from frozenkit import FeatureCache, FeatureSet
from frozenkit.fingerprint import Fingerprint
from tests.benchmarks.timing import Figure, figure, median_seconds

ROWS, WIDTH, BATCH = 20_000, 2_048, 256


KEY = Fingerprint({"of": "benchmark"})


def features() -> FeatureSet:
    """20,000 × 2,048 as a rectifier leaves them: half zeros."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS, WIDTH, generator=generator).relu_().half().float()
    return replace(FeatureSet.from_arrays(x, torch.arange(ROWS) % 10), fingerprint=KEY.digest)


def rival() -> Any:
    """h5py, which only this comparison needs: the dev extra brings it."""
    import h5py

    return h5py


def with_files(measure: Callable[[Path], Figure]) -> Figure:
    with tempfile.TemporaryDirectory() as folder:
        return measure(Path(folder))


def write_ours(cache: FeatureCache, data: FeatureSet) -> None:
    cache.clear()
    with cache._writing([KEY.digest]):
        part = cache._part(data, (ROWS, WIDTH), BATCH, KEY)
        for start in range(0, ROWS, BATCH):
            part.write(start, data.features[start : start + BATCH])
        part.finish()


def write_gzip(path: Path, array: np.ndarray[Any, Any]) -> None:
    with rival().File(path, "w") as file:
        file.create_dataset("features", data=array, compression="gzip", compression_opts=4, chunks=True)


def p6a_write() -> Figure:
    def measure(folder: Path) -> Figure:
        data, cache = features(), FeatureCache(folder / "ours", storage="float16")
        array = data.features.half().numpy()
        ours = median_seconds(lambda: write_ours(cache, data))
        reference = median_seconds(lambda: write_gzip(folder / "gzip.h5", array), repeats=3)
        size = (folder / "gzip.h5").stat().st_size / cache.size
        note = f"{ROWS:,} × {WIDTH:,} float16, checksums and fsync included; gzip's file is {size:.0%} of ours."
        return figure("cache write", ours, reference, floor=8, goal=15, note=note)

    return with_files(measure)


def reading(folder: Path) -> tuple[FeatureCache, str, Path]:
    data, cache = features(), FeatureCache(folder / "ours", storage="float16")
    write_ours(cache, data)
    write_gzip(folder / "gzip.h5", data.features.half().numpy())
    return cache, KEY.digest, folder / "gzip.h5"


def p6b_read() -> Figure:
    def measure(folder: Path) -> Figure:
        cache, digest, path = reading(folder)

        def read_gzip() -> None:
            with rival().File(path) as file:
                torch.from_numpy(file["features"][:]).float()

        ours = median_seconds(lambda: cache.load(digest))
        reference = median_seconds(read_gzip)
        return figure("cache full read", ours, reference, floor=4, goal=8, note="As float32; every checksum compared.")

    return with_files(measure)


def p6c_random_rows() -> Figure:
    def measure(folder: Path) -> Figure:
        cache, digest, path = reading(folder)
        rows = np.random.default_rng(0).permutation(ROWS)[:1000]
        lazy = cache.open(digest)

        def read_gzip() -> None:
            with rival().File(path) as file:
                for row in rows:
                    torch.from_numpy(file["features"][row]).float()

        ours = median_seconds(lambda: lazy.rows(rows))
        reference = median_seconds(read_gzip, repeats=3)
        return figure("cache, 1,000 random rows", ours, reference, floor=20, goal=100, note="A row at a time for gzip.")

    return with_files(measure)


def p7_against_numpy() -> Figure:
    def measure(folder: Path) -> Figure:
        cache, digest, _ = reading(folder)
        np.save(folder / "plain.npy", features().features.half().numpy())
        ours = median_seconds(lambda: cache.load(digest))
        reference = median_seconds(lambda: torch.from_numpy(np.load(folder / "plain.npy")).float())
        note = f"Ours takes {ours / reference:.2f} times as long (floor 4, goal 1.5), every checksum compared."
        return figure("numpy.load / cache full read", ours, reference, floor=1 / 4, goal=1 / 1.5, note=note)

    return with_files(measure)
