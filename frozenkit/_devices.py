"""Where to compute, and how exactly: the device, float32 and bfloat16."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch

from frozenkit.errors import InputError, UnknownNameError

PRECISIONS = ("auto", "exact", "fast")


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """The device to compute on.

    Args:
        device: ``"auto"`` takes ``$FROZENKIT_DEVICE`` if set, else a CUDA GPU if there is one, else the CPU.

    Raises:
        InputError: If the device is unknown or not on this machine.

    Example:
        >>> resolve_device("cpu")
        device(type='cpu')
    """
    if device == "auto":
        device = os.environ.get("FROZENKIT_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"`device` must be 'auto', 'cpu', 'cuda' or the like, got {device!r}.") from error
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"`device` {device!r} needs a CUDA GPU, and torch sees none. Use 'cpu' or 'auto'.")
    return resolved


@contextmanager
def full_float32() -> Iterator[None]:
    """Float32 is computed as float32 inside the block, whatever shortcuts (TF32, bfloat16) are switched on outside.

    cuDNN's convolutions use TF32 unless told otherwise, 10 bits of fraction instead of 23.
    """
    backends: Any = torch.backends
    if hasattr(backends.cudnn, "conv"):
        places = (backends.cudnn.conv, backends.cuda.matmul, backends.mkldnn.conv, backends.mkldnn.matmul)
        switches: list[tuple[Any, str, Any]] = [(place, "fp32_precision", "ieee") for place in places]
    else:  # torch before 2.9
        switches = [(backends.cudnn, "allow_tf32", False), (_Matmul(), "precision", "highest")]
    before = [getattr(place, name) for place, name, _ in switches]
    try:
        for place, name, exact in switches:
            setattr(place, name, exact)
        yield
    finally:
        for (place, name, _), value in zip(switches, before, strict=True):
            setattr(place, name, value)


class _Matmul:
    """The precision of float32 products on every device, as torch before 2.9 keeps it."""

    @property
    def precision(self) -> str:
        return torch.get_float32_matmul_precision()

    @precision.setter
    def precision(self, value: str) -> None:
        torch.set_float32_matmul_precision(value)


@cache
def has_native_bfloat16(device_type: str) -> bool:
    """Whether this kind of device multiplies bfloat16 in hardware (CPU: AMX or AVX512-BF16; GPU: Ampere or newer)."""
    if device_type == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    if device_type == "cpu":
        capabilities = torch.backends.cpu.get_cpu_capability()
        return "AVX512" in capabilities and (_cpu_flag("avx512_bf16") or _cpu_flag("amx_bf16"))
    return False


def resolve_precision(precision: str, device_type: str, *, training: bool = False) -> str:
    """``"exact"``, float32 throughout, or ``"fast"``, bfloat16: what `precision` means on this kind of device.

    Args:
        precision: ``"exact"``; ``"fast"`` where the hardware multiplies bfloat16 natively, else as ``"exact"``; or
            ``"auto"``, which is the quicker of the two.
        device_type: Such as ``"cpu"``.
        training: Whether gradients are computed, too. On a CPU autocast then costs more than bfloat16 saves.

    Raises:
        UnknownNameError: If `precision` is none of the three.
    """
    if not isinstance(precision, str) or precision not in PRECISIONS:
        raise UnknownNameError("precision", precision, PRECISIONS)
    is_slower = training and precision == "auto" and device_type == "cpu"
    return "exact" if precision == "exact" or is_slower or not has_native_bfloat16(device_type) else "fast"


def _cpu_flag(flag: str) -> bool:
    try:
        with Path("/proc/cpuinfo").open() as lines:  # Linux only; elsewhere bfloat16 is simply not used
            return any(line.startswith("flags") and flag in line.split() for line in lines)
    except OSError:
        return False
