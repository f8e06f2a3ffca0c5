"""Frozen feature transfer: keep a pretrained network fixed, fit a light head, and know how good the result is."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# Public name -> the module that holds it. Loaded on first use, so that `import frozenkit` stays light.
_HOMES = {
    "Advice": "advice",
    "AttentionHead": "heads",
    "Backbone": "backbones",
    "Bound": "bounds",
    "CacheLab": "widgets",
    "CachedFeatures": "cache",
    "Divergence": "divergence",
    "FeatureCache": "cache",
    "FeatureExtractor": "extraction",
    "FeatureSet": "features",
    "FineTuned": "finetuning",
    "FrozenClassifier": "heads",
    "FrozenkitError": "errors",
    "FrozenkitWarning": "errors",
    "Gap": "gaps",
    "HEAD_RULES": "heads",
    "HeadLab": "widgets",
    "ImageDataset": "datasets",
    "LayerLab": "widgets",
    "LayerMix": "features",
    "LayerMixHead": "heads",
    "LinearHead": "heads",
    "MLPHead": "heads",
    "PUBLISHED_GAPS": "gaps",
    "PairedTest": "scores",
    "Probe": "probes",
    "PrototypicalHead": "heads",
    "RidgeProbe": "estimators",
    "Score": "scores",
    "ShiftLab": "widgets",
    "SoftmaxProbe": "estimators",
    "TeachLab": "widgets",
    "advise": "advice",
    "assert_frozen": "backbones",
    "backbone_report": "studies",
    "break_even": "gaps",
    "cka": "divergence",
    "class_separation": "geometry",
    "combine": "features",
    "compare": "scores",
    "control_scores": "controls",
    "domain_bound": "bounds",
    "duplicates": "splits",
    "effective_rank": "geometry",
    "explained_variance": "geometry",
    "extract": "extraction",
    "few_shot": "splits",
    "finetune": "finetuning",
    "fit_probe": "probes",
    "frechet_distance": "divergence",
    "from_torch": "datasets",
    "holdout_bound": "bounds",
    "image_folder": "datasets",
    "imbalance": "geometry",
    "layer_report": "studies",
    "layer_table": "backbones",
    "learning_curve": "studies",
    "linear_probe_bound": "bounds",
    "list_backbones": "backbones",
    "list_datasets": "datasets",
    "load_backbone": "backbones",
    "load_dataset": "datasets",
    "load_features": "cache",
    "margin_bound": "bounds",
    "mmd": "divergence",
    "pac_bayes_bound": "gibbs",
    "proxy_a_distance": "divergence",
    "race": "races",
    "reduce": "features",
    "representation_gap": "gaps",
    "ridge_path": "solvers",
    "save_features": "cache",
    "score": "scores",
    "select_head": "heads",
    "selectivity": "shuffling",
    "shift": "datasets",
    "softmax_path": "solvers",
    "split": "splits",
    "train_head": "solvers",
    "zero_shot": "zeroshot",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'frozenkit' has no attribute {name!r}")
    value = getattr(import_module(f"frozenkit.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
