"""How heads are fitted: whole regularisation paths in closed form."""

from frozenkit.ridge import DEFAULT_STRENGTHS, LinearMap, RidgePath, ridge_path

__all__ = ["DEFAULT_STRENGTHS", "LinearMap", "RidgePath", "ridge_path"]
