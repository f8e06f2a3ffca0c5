"""How heads are fitted: whole regularisation paths in closed form or batched, and gradient training of any head."""

from frozenkit.ridge import DEFAULT_STRENGTHS, LinearMap, RidgePath, ridge_path
from frozenkit.softmax import SoftmaxPath, softmax_path
from frozenkit.training import TrainLog, train_head

__all__ = [
    "DEFAULT_STRENGTHS",
    "LinearMap",
    "RidgePath",
    "SoftmaxPath",
    "TrainLog",
    "ridge_path",
    "softmax_path",
    "train_head",
]
