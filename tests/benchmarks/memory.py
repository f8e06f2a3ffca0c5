"""Memory that does not grow with the number of images, and the time that `import frozenkit` takes: in new processes."""

import os
import statistics
import subprocess
import sys
import tempfile

from tests.benchmarks.timing import Figure

EXTRACT = """
from frozenkit import FeatureCache, extract_layers, load_backbone, load_dataset
backbone, cache = load_backbone(image_size=64, device="cpu"), FeatureCache({root!r})
data, layers = load_dataset("fashion-mnist", limit={n}), ["blocks.2", "blocks.4", "global_pool"]
extract_layers(backbone, data, layers=layers, cache=cache, lazy=True, progress=False)
"""

# 200 MB of features an n of 40,000: what is written is read again in chunks, never as a whole.
RIDGE = """
from dataclasses import replace
import torch
from frozenkit import FeatureCache, FeatureSet, fit_probe
from frozenkit.fingerprint import Fingerprint
n, cache, key = {n}, FeatureCache({root!r}), Fingerprint({{"of": "benchmark"}})
labels = torch.arange(n) % 10
like = replace(FeatureSet.from_arrays(torch.zeros(n, 1), labels), fingerprint=key.digest)
part = cache._part(like, (n, 1280), 500, key)
for start in range(0, n, 500):
    part.write(start, torch.randn(500, 1280) + torch.nn.functional.one_hot(labels[start : start + 500], 1280))
part.finish()
lazy = cache.open(key.digest)
fit_probe(lazy, strengths=[0.1, 1.0]).score(lazy)
"""

# Not getrusage: a new process inherits the peak of the one that started it.
PEAK = """
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def run(script: str) -> float:
    """What a new Python prints last, as a number."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([".", *sys.path]), "OMP_WAIT_POLICY": "passive"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    return float(done.stdout.split()[-1])


def peak_megabytes(script: str, n: int) -> float:
    with tempfile.TemporaryDirectory() as root:
        return run(script.format(n=n, root=root) + PEAK) / 1024


def growth(work: str, script: str, small: int, large: int, kept: float) -> Figure:
    """`kept` is what the features alone of the additional images would take, in MB."""
    before, after = peak_megabytes(script, small), peak_megabytes(script, large)
    note = f"Peak {before:.0f} MB before, {after:.0f} MB after. Labels, ids and logits are kept for each image."
    more = max(1.0, after - before)
    return Figure(f"{work} for {large - small:,} more images", more, kept, kept / more, 3, 10, note, unit="MB")


def p12a_extraction() -> Figure:
    return growth("growth of lazy extraction against its features,", EXTRACT, 500, 4_000, 3_500 * 1_512 * 4 / 1e6)


def p12b_ridge() -> Figure:
    return growth("growth of ridge from disk against its features,", RIDGE, 5_000, 80_000, 75_000 * 1_280 * 4 / 1e6)


def p10_import() -> Figure:
    """`import frozenkit` beyond `import torch`."""
    timed = "import time; import torch, numpy; start = time.perf_counter(); {}; print(time.perf_counter() - start)"
    ours = statistics.median(run(timed.format("import frozenkit")) for _ in range(5))
    return Figure("import frozenkit beyond torch", ours, 0.3, 0.3 / ours, 1, 3, "Reference: the floor of 0.3 s.")
