"""Frozen feature transfer: keep a pretrained network fixed, fit a light head, and know how good the result is."""

from importlib import import_module
from typing import Any

__version__ = "0.2.0"

# Public name -> the module that holds it. Loaded on first use, so that `import frozenkit` stays light.
_HOMES = {
    "Advice": "comparison.advice",
    "AttentionHead": "heads.modules",
    "Backbone": "networks.backbone",
    "Bound": "theory.bounds",
    "CRITERIA": "comparison.advice",
    "CacheLab": "widgets",
    "CachedFeatures": "extraction.cache",
    "Divergence": "theory.divergence",
    "FeatureCache": "extraction.cache",
    "FeatureExtractor": "classifier.modules",
    "FeatureSet": "features",
    "Features": "features",
    "FineTuned": "comparison.finetuning",
    "FreezeError": "errors",
    "FrozenClassifier": "classifier.modules",
    "FrozenkitError": "errors",
    "FrozenkitWarning": "errors",
    "Gap": "probes.scores",
    "HEAD_RULES": "heads.rules",
    "HeadLab": "widgets",
    "ImageDataset": "images.dataset",
    "LayerLab": "widgets",
    "LayerMix": "heads.modules",
    "LayerMixHead": "heads.modules",
    "LinearHead": "heads.modules",
    "MLPHead": "heads.modules",
    "PUBLISHED_GAPS": "comparison.gaps",
    "PUBLISHED_RACE": "comparison.race",
    "PairedTest": "probes.scores",
    "Probe": "probes.probe",
    "PrototypicalHead": "heads.prototypical",
    "RidgeProbe": "probes.estimators",
    "Score": "probes.scores",
    "ShiftLab": "widgets",
    "SoftmaxProbe": "probes.estimators",
    "TeachLab": "widgets",
    "advise": "comparison.advice",
    "assert_frozen": "networks.backbone",
    "backbone_report": "probes.reports",
    "break_even": "comparison.gaps",
    "cka": "theory.divergence",
    "class_separation": "theory.geometry",
    "combine": "features",
    "compare": "probes.scores",
    "control_scores": "comparison.controls",
    "decision_regions": "probes.regions",
    "doctor": "app.doctor",
    "domain_bound": "theory.bounds",
    "duplicates": "splits",
    "effective_rank": "theory.geometry",
    "explained_variance": "theory.geometry",
    "extract": "extraction.extract",
    "extract_layers": "extraction.extract",
    "few_shot": "splits",
    "finetune": "comparison.finetuning",
    "fingerprint_of": "extraction.key",
    "fit_probe": "probes.probe",
    "frechet_distance": "theory.divergence",
    "from_torch": "images.pairs",
    "holdout_bound": "theory.bounds",
    "holm": "probes.intervals",
    "image_files": "images.folder",
    "image_folder": "images.folder",
    "imagenet_classes": "comparison.zero_shot",
    "imbalance": "theory.geometry",
    "layer_report": "probes.reports",
    "layer_table": "networks.backbone",
    "learning_curve": "probes.reports",
    "linear_probe_bound": "theory.bounds",
    "list_backbones": "networks.zoo",
    "list_datasets": "images.catalog",
    "load_backbone": "networks.backbone",
    "load_dataset": "images.catalog",
    "load_features": "extraction.saved",
    "load_images": "app.report",
    "margin_bound": "theory.bounds",
    "mmd": "theory.divergence",
    "pac_bayes_bound": "theory.pac_bayes",
    "probe_report": "app.report",
    "proxy_a_distance": "theory.divergence",
    "published_gaps_table": "comparison.gaps",
    "race": "comparison.race",
    "randomized": "comparison.controls",
    "raw_pixels": "comparison.controls",
    "reduce": "features",
    "reliability": "probes.calibration",
    "representation_gap": "comparison.gaps",
    "ridge_path": "heads.ridge",
    "round_through": "extraction.cache",
    "save_features": "extraction.saved",
    "score": "probes.scores",
    "select_head": "heads.rules",
    "selectivity": "probes.selectivity",
    "shift": "images.shifts",
    "softmax_path": "heads.softmax",
    "split": "splits",
    "train_head": "heads.training",
    "width_curve": "probes.reports",
    "zero_shot": "comparison.zero_shot",
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
