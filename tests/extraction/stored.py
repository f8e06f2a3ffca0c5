"""A small set with odd names, and how extraction writes it."""

import torch

from frozenkit.features import FeatureSet
from frozenkit.fingerprint import Fingerprint

PRINT = Fingerprint({"dataset": "noise", "backbone": "none", "layer": "l", "pooling": "mean"})


def a_set(n=50, d=7, fingerprint=PRINT.digest, seed=0, tokens=None):
    shape = (n, d) if tokens is None else (n, tokens, d)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    labels, ids = torch.arange(n) % 3, [f"id-{i}-é" for i in range(n)]
    return FeatureSet(x, labels, classes=("a", "ü<b>", "c"), ids=ids, layer="l", fingerprint=fingerprint)


def store(cache, fs, batch_size=8, fingerprint=PRINT, upto=None):
    """Writes batches as extraction does; `upto` stops before finishing, as a kill would."""
    part = cache._part(fs, tuple(fs.features.shape), batch_size, fingerprint)
    for start in range(0, len(fs) if upto is None else upto, batch_size):
        part.write(start, fs.features[start : start + batch_size])
    if upto is None:
        part.finish()
    part.close()
