"""g∘φ as one module: a frozen network that gives features, and the head on them; what you ship."""

import copy
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from frozenkit import __version__
from frozenkit._arrays import described, texts
from frozenkit._files import with_suffix
from frozenkit.classifier.card import as_facts, write_with_card
from frozenkit.classifier.export import export_onnx
from frozenkit.classifier.identity import describe_backbone
from frozenkit.classifier.predictions import Predictions, as_unlabelled
from frozenkit.errors import InputError
from frozenkit.extraction.cache import CachedFeatures, FeatureCache
from frozenkit.extraction.extract import extract_layers
from frozenkit.extraction.key import backbone_digests
from frozenkit.features import FeatureSet
from frozenkit.fingerprint import digest_weights, probe_images
from frozenkit.heads.columns import AllClasses
from frozenkit.heads.modules import LayerMix, LinearHead, in_batches
from frozenkit.heads.ridge import LinearMap
from frozenkit.heads.stored import describe_head
from frozenkit.networks.backbone import Backbone, check_backbone
from frozenkit.networks.layers import check_pooling, in_eval_mode, pooled_activations, pooled_shape
from frozenkit.probes.probe import Probe
from frozenkit.probes.recipe import probe_recipe
from frozenkit.probes.stored import probe_facts


class FeatureExtractor(nn.Module):
    """φ as a module: preprocessed images in, pooled features out; the backbone stays frozen and in eval mode.

    Args:
        backbone: From `load_backbone`, or your own.
        layers: Names from ``backbone.layers``; default the penultimate one.
        pooling: As in `extract`, but ``"tokens"`` only for a single layer.
        combine: ``"concat"``, ``"mean"`` (equal widths), or ``"learned"``: a `LayerMix`, the only part that trains.

    Attributes:
        output_dim: d, the width of the result.

    Example:
        >>> from frozenkit import load_backbone
        >>> phi = FeatureExtractor(load_backbone(image_size=64, device="cpu"), ["blocks.4", "blocks.6"])
        >>> phi.train()(torch.zeros(2, 3, 64, 64)).shape, phi.output_dim
        (torch.Size([2, 432]), 432)
    """

    def __init__(
        self,
        backbone: Backbone,
        layers: str | Sequence[str] | None = None,
        *,
        pooling: str = "mean",
        combine: str = "concat",
    ) -> None:
        super().__init__()
        check_backbone(backbone)
        if combine not in ("concat", "mean", "learned"):
            raise InputError(f"`combine` must be 'concat', 'mean' or 'learned', got {combine!r}.")
        check_pooling(pooling)
        self.layers = backbone.check_layers(layers)
        if pooling == "tokens" and len(self.layers) > 1:
            raise InputError("`pooling='tokens'` works with one layer: others have other numbers of tokens.")
        self.backbone = backbone
        self.module = backbone.module
        self.pooling = pooling
        self.combine = combine
        self._trace = backbone.trace()
        widths = [pooled_shape(self._trace, name, pooling)[-1] for name in self.layers]
        if combine == "mean" and len(set(widths)) > 1:
            raise InputError(f"`combine='mean'` needs layers of one width, got {widths}. Use 'concat' or 'learned'.")
        self.mix = LayerMix(widths) if combine == "learned" else None
        self.output_dim = sum(widths) if combine == "concat" else max(widths)

    def train(self, mode: bool = True) -> "FeatureExtractor":
        """Train mode for the mix, if there is one; never for the backbone."""
        super().train(mode)
        self.module.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """(b, 3, h, w) preprocessed images to (b, output_dim) features; gradients only for images that ask for them."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and images.requires_grad):
            pooled = pooled_activations(self.module, images, self.layers, self.pooling, self._trace)
        return self.join(pooled)

    def join(self, pooled: Mapping[str, Tensor]) -> Tensor:
        """The pooled features of the layers as one (b, output_dim), or (b, t, output_dim) with ``"tokens"``."""
        members = [pooled[name] for name in self.layers]
        if self.mix is not None:
            return self.mix(members)
        return torch.cat(members, -1) if self.combine == "concat" else torch.stack(members).mean(0)

    def backbone_here(self) -> Backbone:
        """The backbone on the device that its module is on now, to which ``.to(…)`` may have moved it."""
        tensor = next((t for t in (*self.module.parameters(), *self.module.buffers())), None)
        if tensor is None or tensor.device == self.backbone.device:
            return self.backbone
        here = copy.copy(self.backbone)
        here.device = tensor.device
        return here


class FrozenClassifier(nn.Module):
    """g∘φ as one module: images in, logits out; only the head ever moves.

    `from_probe` makes one of a fitted probe. Images that require gradients get them; the backbone never does.

    Args:
        extractor: φ, such as a `FeatureExtractor`. It stays in eval mode, also under ``.train()``, and gets no
            gradient, except its learned mix of layers (``extractor.mix``) where it has one: that is part of the head.
        head: g, a module. Of a ridge or softmax probe whose ``present`` are all classes that is
            ``LinearHead.from_map(probe.head.weights, probe.head.intercept, unit=probe.head.unit)``.
        classes: k class names, for `predict`.

    Attributes:
        classes: Class names; empty where they are not known, and for regression.
        temperature: Divides logits before the softmax of `predict`; the probe's, or 1.
        precision: In which `predict` computes; the one of the probe's features, or ``"auto"``.
        facts: What is known of the probe, as JSON; None where there was none.

    Raises:
        InputError: If extractor or head is no module.

    Example:
        >>> model = FrozenClassifier(nn.Flatten(), LinearHead(12, 2)).train()
        >>> model(torch.zeros(5, 3, 2, 2)).shape, sum(p.numel() for p in model.trainable_parameters())
        (torch.Size([5, 2]), 26)
    """

    def __init__(self, extractor: nn.Module, head: nn.Module, *, classes: Sequence[str] = ()) -> None:
        super().__init__()
        for name, part in {"extractor": extractor, "head": head}.items():
            if not isinstance(part, nn.Module):
                advice = {
                    "Probe": " Of a ridge or softmax probe: LinearHead.from_map(probe.head.weights, "
                    "probe.head.intercept, unit=probe.head.unit); of another, probe.head.",
                    "Backbone": " Wrap it: FeatureExtractor(backbone).",
                }.get(type(part).__name__, "")
                raise InputError(f"`{name}` must be a torch module, got {type(part).__name__}.{advice}")
        self.extractor = extractor
        self.head = head
        self.classes = texts(classes, "classes")
        self.temperature = 1.0
        self.precision = "auto"
        self.facts: dict[str, Any] | None = None
        mix = getattr(extractor, "mix", None)
        learned = {id(p) for p in mix.parameters()} if isinstance(mix, nn.Module) else set()
        for parameter in extractor.parameters():
            parameter.requires_grad_(id(parameter) in learned)
        self._learns_mix = bool(learned)
        self.train(self.training)

    @classmethod
    def from_probe(cls, backbone: Backbone, probe: Probe, *, pooling: str | None = None) -> "FrozenClassifier":
        """The classifier that predicts from images what the probe predicts from their features.

        Args:
            backbone: The one that the probe's features are from. What they say of their making (`Probe.origin`) is
                compared: its name, its image size, its weights, what its preprocessing gives, and the pooling.
            probe: From `fit_probe`, on one layer, or on several joined by `combine`.
            pooling: How the features were pooled; must be given only where they do not say it, as those from arrays.

        Returns:
            In eval mode. ``forward`` gives the probe's logits, −∞ for a class without a training image; in regression
            its values.

        Raises:
            InputError: If the probe's features are of another backbone, layer, size, pooling or width.

        Example:
            >>> from frozenkit import extract, fit_probe, load_backbone, load_dataset
            >>> backbone = load_backbone(image_size=64, device="cpu")
            >>> digits = load_dataset("digits", limit=60)
            >>> probe = fit_probe(extract(backbone, digits, layer="blocks.4", progress=False))
            >>> found = FrozenClassifier.from_probe(backbone, probe).predict(digits[:20], progress=False)
            >>> found.probabilities.shape, found.class_[0] in digits.classes
            (torch.Size([20, 10]), True)
        """
        check_backbone(backbone)
        if not isinstance(probe, Probe):
            hint = "Fit one: fit_probe(extract(backbone, dataset))."
            raise InputError(f"`probe` must be a Probe, got {described(probe)}. {hint}")
        extractor = _extractor_of(backbone, probe, _pooling_of(backbone, probe, pooling))
        head: nn.Module
        if isinstance(probe.head, LinearMap):
            head = LinearHead.from_map(probe.head.weights, probe.head.intercept, unit=probe.head.unit)
        else:
            head = copy.deepcopy(probe.head)
        if 0 < len(probe.present) < len(probe.classes):
            head = nn.Sequential(head, AllClasses(probe.present, len(probe.classes)))
        model = cls(extractor, head.to(backbone.device), classes=probe.classes).eval()
        model.temperature = probe.temperature
        model.precision = probe.origin.precision if probe.origin else "auto"
        facts = probe_facts(probe) | {"head_digest": digest_weights(model.head)}
        model.facts = json.loads(json.dumps(facts))  # as it comes out of a file
        return model

    def trainable_parameters(self) -> Iterator[nn.Parameter]:
        """What an optimiser may have: the head's parameters, and those of a learned mix of layers."""
        return (p for p in self.parameters() if p.requires_grad)

    def train(self, mode: bool = True) -> "FrozenClassifier":
        """Train mode for the head alone."""
        super().train(mode)
        self.extractor.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """(b, 3, h, w) preprocessed images to (b, k)."""
        if self._learns_mix:
            return self.head(self.extractor(images))  # the extractor itself keeps gradients out of the backbone
        with torch.set_grad_enabled(torch.is_grad_enabled() and images.requires_grad):
            features = self.extractor(images)
        return self.head(features)

    def predict(
        self,
        images: Any,
        *,
        batch_size: int | None = None,
        workers: int | str = "auto",
        progress: bool | Callable[[int, int], None] | None = None,
        skip_bad: bool = False,
        cache: FeatureCache | None = None,
    ) -> Predictions:
        """What is on these images, and how sure that is: `extract`, then the head.

        Args:
            images: A folder (every image in it and below it, whatever its subfolders are called), a file, or a list of
                files; PIL images; an `ImageDataset`, with labels or without, or whatever `from_torch` takes.
            batch_size: As in `extract`.
            workers: As in `extract`.
            progress: As in `extract`.
            skip_bad: Leave files that are no readable images out, listed in the result's ``skipped`` and in a warning,
                instead of stopping.
            cache: As in `extract`. With one, memory stays flat in the number of images.

        Returns:
            `Predictions`, in the order of the images; of a folder, in that of their paths.

        Raises:
            InputError: If these are no images, or none, or the classifier does not know its classes or how its backbone
                preprocesses.
            DataError: If a file is no readable image; lists them all.
        """
        if not isinstance(self.extractor, FeatureExtractor):
            raise InputError(
                "`predict` needs to know how images are preprocessed, and this extractor is a "
                f"{type(self.extractor).__name__}. Use FeatureExtractor(backbone, layer)."
            )
        if not self.classes and self.facts is None:
            raise InputError("`classes` must be given to predict: FrozenClassifier(extractor, head, classes=[…]).")
        dataset = as_unlabelled(images, skip_bad=skip_bad)
        phi = self.extractor
        sets = extract_layers(
            phi.backbone_here(),
            dataset,
            layers=phi.layers,
            pooling=phi.pooling,
            precision=self.precision,
            batch_size=batch_size,
            workers=workers,
            cache=cache,
            progress=progress,
            lazy=cache is not None,  # type: ignore[call-overload]
        )
        outputs = self._outputs(list(sets.values()), len(dataset))
        about = tuple(dataset.ids), self.classes, getattr(dataset, "skipped", ())
        if not self.classes:
            assert self.facts is not None
            return Predictions(about[0], outputs.reshape(len(outputs), *self.facts["label_shape"]), (), None, about[2])
        if outputs.shape[1] != len(self.classes):
            raise InputError(f"`head` must give one number per class, {len(self.classes)}, got {outputs.shape[1]}.")
        labels = outputs > 0 if self.is_multilabel else outputs.argmax(1)
        return Predictions(about[0], labels, self.classes, self.probabilities(outputs), about[2])

    @property
    def is_multilabel(self) -> bool:
        """Whether an image may have any number of the classes."""
        return bool(self.classes and self.facts and self.facts["label_shape"])

    def probabilities(self, logits: Tensor) -> Tensor:
        """(b, k) calibrated probabilities from (b, k) logits: rows sum to 1, unless an image may have several labels.

        In regression, the values themselves.
        """
        scaled = logits / self.temperature
        return logits if not self.classes else scaled.sigmoid() if self.is_multilabel else scaled.softmax(1)

    def save(
        self,
        path: str | Path,
        *,
        scores: Mapping[str, Any] | Any = None,
        controls: Mapping[str, Any] | None = None,
        notes: str = "",
        include_weights: bool = False,
    ) -> None:
        """Writes one safetensors file, and a card that says what it is beside it; `load_classifier` reads it.

        In the file are the head, the classes, and by what the backbone is known again: its name, a digest of its
        weights, of what its preprocessing gives and of what its layers do. No pickle, no code; sealed by a sha256.

        Args:
            path: Ends in ``.safetensors``; a file that is there is replaced, and so is its card, which ends in ``.md``.
            scores: A `Score` on images that took no part, or several by name: for the card, with their intervals.
            controls: Scores of controls by name, such as those of `control_scores`: for the card.
            notes: A paragraph for the card: what it is meant for, where the images are from.
            include_weights: Put the backbone's weights in, too. The file then loads without its source, wherever
                `load_backbone` knows the architecture by name.

        Raises:
            InputError: If the suffix is another one, the classifier knows neither backbone nor classes, preprocessing
                is random, or a file that is no card of ours stands where the card would be.
            CacheError: If a file cannot be written.
        """
        path = with_suffix(path, ".safetensors")
        if not isinstance(self.extractor, FeatureExtractor) or not (self.classes or self.facts):
            raise InputError(
                "`save` needs a FeatureExtractor and class names: FrozenClassifier.from_probe(backbone, probe), or "
                "FrozenClassifier(FeatureExtractor(backbone, layer), head, classes=[…])."
            )
        phi = self.extractor
        said, tensors = describe_head(self.head)
        kept = {f"head.{name}": tensor for name, tensor in tensors.items()}
        if phi.mix is not None:
            kept |= {f"mix.{name}": tensor for name, tensor in phi.mix.state_dict().items()}
        if include_weights:
            kept |= {f"backbone.{name}": tensor for name, tensor in phi.module.state_dict().items()}
        about = {
            "backbone": describe_backbone(phi.backbone_here(), phi.layers, phi.pooling),
            "layers": phi.layers,
            "pooling": phi.pooling,
            "combine": phi.combine,
            "head": said,
            "classes": self.classes,
            "temperature": self.temperature,
            "precision": self.precision,
            "facts": self.facts,
            "is_changed": self._is_changed,
            "scores": as_facts("scores", scores),
            "controls": as_facts("controls", controls),
            "notes": str(notes),
            "frozenkit": __version__,
        }
        write_with_card(path, about, kept)

    def recipe(self) -> str:
        """The few lines of Python that make this classifier again, as in `Probe.recipe`.

        Raises:
            InputError: If it was not made of a probe.
        """
        if self.facts is None:
            raise InputError("`recipe` needs to know the probe. Make the classifier with FrozenClassifier.from_probe.")
        imports = "from frozenkit import FrozenClassifier\n"
        pooling = "" if self.facts["origin"] else f", pooling={getattr(self.extractor, 'pooling', 'mean')!r}"
        backbone = "" if self.facts["origin"] else "backbone = ...  # TO FILL IN: the one that the features are from\n"
        last = f"{backbone}model = FrozenClassifier.from_probe(backbone, probe{pooling})"
        changed = "\n# TO FILL IN: the head was changed since" if self._is_changed else ""
        return f"{imports}{probe_recipe(self.facts)}\n{last}{changed}"

    @property
    def _is_changed(self) -> bool:
        """Whether the head is no longer the one that was fitted."""
        return bool(self.facts and self.facts["head_digest"] != digest_weights(self.head))

    def to_onnx(self, path: str | Path, *, opset: int | None = None, check: bool = True) -> float | None:
        """Writes network and head to one ONNX file, and compares what ONNX Runtime makes of it with torch.

        Its input ``images`` is (b, 3, h, w) float32, any b, of images that went through ``backbone.preprocess``; its
        outputs are ``logits`` and ``probabilities``, both (b, k), in float32 throughout: where the probe learnt from
        features of ``precision="fast"``, `predict` computes in bfloat16 and gives slightly others. Needs the extra
        ``onnx``.

        Args:
            path: Ends in ``.onnx``; a file that is there is replaced, once the new one has been compared.
            opset: Version of ONNX's operators, at least 18; default torch's own choice.
            check: Whether to compare, on a few fixed images.

        Returns:
            The largest difference of a logit that was found; None without `check`.

        Raises:
            InputError: If this cannot be exported, or the extractor is no `FeatureExtractor`.
            ActivationError: If ONNX Runtime computes something else.
            CacheError: If the file cannot be written.
            NotAvailableError: If the extra is missing.
        """
        if not isinstance(self.extractor, FeatureExtractor):
            raise InputError(f"`to_onnx` needs a FeatureExtractor, got a {type(self.extractor).__name__}.")
        backbone = self.extractor.backbone
        side = backbone.image_size
        fixed = probe_images([(side, side), (side + 30, side), (side, side + 40)])
        return export_onnx(self, path, torch.stack([backbone.preprocess(i) for i in fixed]), opset=opset, check=check)

    def _outputs(self, sets: Sequence[FeatureSet | CachedFeatures], n: int) -> Tensor:
        """(n, k) of the head, from the features of each layer."""
        phi: FeatureExtractor = self.extractor  # type: ignore[assignment]
        device = next((t.device for t in (*self.head.parameters(), *self.head.buffers())), torch.device("cpu"))

        def batches() -> Iterator[Tensor]:
            for parts in zip(*(fs.batches(1024) for fs in sets), strict=True):
                yield phi.join({name: x.to(device) for name, (x, _) in zip(phi.layers, parts, strict=True)})

        with in_eval_mode(self.head):
            return in_batches(self.head, batches(), n)


def _pooling_of(backbone: Backbone, probe: Probe, pooling: str | None) -> str:
    """How to pool, after making sure that nothing known of the probe's features contradicts it, or the backbone."""
    origin = probe.origin
    if origin is None:
        if pooling is None:
            raise InputError(
                "`pooling` must be given, since the features of this probe do not say how they were pooled. Give it as "
                "it was in `extract`, whose default is pooling='mean'."
            )
        return pooling
    if origin.backbone != backbone.name:
        raise InputError(
            f"`backbone` must be {origin.backbone!r}, which the features of this probe are from, got {backbone.name!r}."
        )
    if origin.image_size != backbone.image_size:
        raise InputError(
            f"`backbone` must take images of {origin.image_size} px, as for the features of this probe, got "
            f"{backbone.image_size} px. Load it with image_size={origin.image_size}."
        )
    weights, preprocessing = backbone_digests(backbone)
    for what, then, now in (
        ("its weights are others", origin.weights, weights),
        ("its preprocessing gives other numbers", origin.preprocessing, preprocessing),
    ):
        if then and now and then != now:
            raise InputError(
                f"`backbone` must be the {origin.backbone!r} that the features of this probe are from, but {what}. "
                "Give that one, or extract again and fit a probe on the features of this one."
            )
    if pooling not in (None, origin.pooling):
        raise InputError(
            f"`pooling` must be {origin.pooling!r}, as in the features of this probe, got {pooling!r}. Leave it out."
        )
    return origin.pooling


def _extractor_of(backbone: Backbone, probe: Probe, pooling: str) -> FeatureExtractor:
    """What gives the features that the probe was fitted on: one layer, or several as `combine` joins them."""
    layers = [probe.layer] if probe.layer in backbone.layers else probe.layer.split("+")
    extractor = FeatureExtractor(backbone, layers, pooling=pooling)
    widths = {extractor.output_dim}
    if extractor.output_dim != probe.n_features and len(layers) > 1:
        with suppress(InputError):  # of layers that differ in width there is no mean
            extractor = FeatureExtractor(backbone, layers, pooling=pooling, combine="mean")
            widths.add(extractor.output_dim)
    if extractor.output_dim != probe.n_features:
        raise InputError(
            f"`probe` must be fitted on the {' or '.join(map(str, sorted(widths)))} features that {probe.layer!r} of "
            f"{backbone.name} gives with pooling={pooling!r}, got {probe.n_features}. Reduced features do not "
            "say how they were reduced: fit the probe on all of them."
        )
    return extractor
