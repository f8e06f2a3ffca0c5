"""A classifier as an ONNX file, which other programs run without torch or frozenkit."""

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from frozenkit._files import disk_errors, with_suffix, written_aside
from frozenkit.errors import ActivationError, InputError, require

_LARGEST_DIFFERENCE = 1e-3  # of the largest logit; rounding gives 1e-6 to 1e-5


class _Both(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(b, 3, h, w) to logits and probabilities."""
        logits = self.model(images)
        return logits, self.model.probabilities(logits)


def export_onnx(model: Any, path: str | Path, images: Tensor, *, opset: int | None, check: bool) -> float | None:
    """Writes a `FrozenClassifier`, and compares what ONNX Runtime makes of `images` with what torch does.

    Returns:
        The largest difference of a logit, or None without `check`.
    """
    path = with_suffix(path, ".onnx")
    if opset is not None and (isinstance(opset, bool) or not isinstance(opset, int) or opset < 18):
        raise InputError(f"`opset` must be a whole number of at least 18, or None for torch's own, got {opset!r}.")
    if check:
        require("onnxruntime", "onnx")
    require("onnxscript", "onnx")
    both = _Both(copy.deepcopy(model).cpu()).eval()
    batch = torch.export.Dim("batch")
    with disk_errors(path), written_aside(path) as part:
        with torch.no_grad(), _quiet():
            try:
                program = torch.onnx.export(
                    both,
                    (images,),
                    input_names=["images"],
                    output_names=["logits", "probabilities"],
                    dynamic_shapes=({0: batch},),
                    opset_version=opset,
                    dynamo=True,
                    verbose=False,
                )
            except Exception as error:  # whatever torch's exporter meets
                reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
                raise InputError(
                    f"`to_onnx` cannot export this classifier: {reason[:300]}. Ridge and softmax probes on any usual "
                    "network can be exported."
                ) from error
            assert program is not None
            program.save(part, external_data=False)
        return _compare(part, both, images) if check else None


def _compare(file: Path, both: nn.Module, images: Tensor) -> float:
    runtime = require("onnxruntime", "onnx")
    try:
        session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        given_all = [session.run(["logits", "probabilities"], {"images": b.numpy()}) for b in (images, images[:1])]
    except Exception as error:  # one class of its own for each code
        raise ActivationError(f"ONNX Runtime must run the file, but: {error!s:.300}. Nothing was written.") from error
    largest = 0.0
    for batch, given in zip((images, images[:1]), given_all, strict=True):  # any number of images
        with torch.no_grad():
            expected = [each.double().nan_to_num(neginf=-1e9) for each in both(batch)]
        found = [torch.from_numpy(each).double().nan_to_num(neginf=-1e9) for each in given]
        scale = max(1.0, float(expected[0][expected[0] > -1e9].abs().max()))
        differences = [float((a - b).abs().max()) for a, b in zip(expected, found, strict=True)]
        if not max(differences[0] / scale, differences[1]) <= _LARGEST_DIFFERENCE:
            raise ActivationError(
                f"ONNX Runtime must compute what torch does, but a logit differs by {differences[0]:.2g}. Nothing was "
                "written. Try another opset, or update onnxruntime and onnxscript."
            )
        largest = max(largest, differences[0])
    return largest


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter says of itself, in warnings and in its log."""
    log = logging.getLogger("torch.onnx")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)
