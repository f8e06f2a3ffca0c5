"""ONNX files: what ONNX Runtime computes is what torch computes, or no file is there."""

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from frozenkit import FeatureExtractor, FrozenClassifier, LinearHead, MLPHead, extract, fit_probe, load_backbone
from frozenkit.classifier import export
from frozenkit.errors import ActivationError, FrozenkitWarning, InputError
from tests.toy import NEEDS_EXPORT, coloured_squares, stacked

pytestmark = NEEDS_EXPORT
TRAIN, TEST = (coloured_squares(n, seed, ("red", "blue", "lime")) for n, seed in ((60, 0), (9, 1)))
HOW = {"layer": "blocks.2", "precision": "exact", "progress": False}


def run(path, images):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return [torch.from_numpy(each) for each in session.run(["logits", "probabilities"], {"images": images.numpy()})]


def test_onnx_runtime_computes_what_predict_does(backbone, tmp_path):
    features = extract(backbone, TRAIN, **HOW)
    with pytest.warns(FrozenkitWarning, match="no training image"):
        probe = fit_probe(features[features.labels != 1])
    model = FrozenClassifier.from_probe(backbone, probe)
    path = tmp_path / "model.onnx"
    assert model.to_onnx(path) < 1e-3
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    logits, probabilities = run(path, stacked(backbone, TEST))
    assert_close(probabilities, model.predict(TEST, progress=False).probabilities, rtol=1e-3, atol=1e-4)
    assert (logits[:, 1] == -torch.inf).all()


@pytest.mark.parametrize("head", ["softmax", "prototype", "knn", MLPHead(40, 3)], ids=["softmax", "near", "knn", "mlp"])
def test_other_heads(backbone, head, tmp_path):
    model = FrozenClassifier.from_probe(backbone, fit_probe(extract(backbone, TRAIN, **HOW), head=head))
    path = tmp_path / "model.onnx"
    assert model.to_onnx(path) < 1e-2
    found = model.predict(TEST, progress=False)
    assert_close(run(path, stacked(backbone, TEST))[1], found.probabilities, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "layer", "size"), [("resnet18", "layer1", 64), ("timm/vit_tiny_patch16_224", None, 64)]
)
def test_other_architectures(name, layer, size, tmp_path):
    backbone = load_backbone(name, weights=None, image_size=size, device="cpu")
    phi = FeatureExtractor(backbone, layer)
    model = FrozenClassifier(phi, LinearHead(phi.output_dim, 3), classes=TEST.classes).eval()
    path = tmp_path / "model.onnx"
    assert model.to_onnx(path) < 1e-3
    images = stacked(backbone, TEST)
    assert_close(run(path, images)[0], model(images).detach(), rtol=1e-3, atol=1e-3)


def test_a_file_that_computes_something_else_is_not_written(backbone, tmp_path, monkeypatch):
    model = FrozenClassifier.from_probe(backbone, fit_probe(extract(backbone, TRAIN, **HOW), strengths=[1.0]))
    path = tmp_path / "model.onnx"
    path.write_bytes(b"before")
    real = onnxruntime.InferenceSession.run
    wrong = lambda *args: [np.float32(1.1) * each for each in real(*args)]  # noqa: E731
    monkeypatch.setattr(onnxruntime.InferenceSession, "run", wrong)
    with pytest.raises(
        ActivationError, match=r"must compute what torch does, but a logit differs by .* Nothing was writ"
    ):
        model.to_onnx(path)
    assert path.read_bytes() == b"before"
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


def test_refusals(backbone, tmp_path):
    phi = FeatureExtractor(backbone, "blocks.2")
    model = FrozenClassifier(phi, LinearHead(40, 3), classes=TEST.classes)
    with pytest.raises(InputError, match=r"`path` must be a path that ends in .onnx, got 'model.pt'"):
        model.to_onnx(tmp_path / "model.pt")
    for opset in (9, "18", True):
        with pytest.raises(InputError, match="`opset` must be a whole number of at least 18"):
            model.to_onnx(tmp_path / "model.onnx", opset=opset)
    with pytest.raises(InputError, match="`to_onnx` needs a FeatureExtractor, got a Flatten"):
        FrozenClassifier(nn.Flatten(), LinearHead(12, 3)).to_onnx(tmp_path / "model.onnx")

    class Odd(nn.Module):
        def forward(self, x):
            return x[:, :3] if float(x.sum()) > 0 else x[:, 1:4]

    with pytest.raises(InputError, match="`to_onnx` cannot export this classifier"):
        FrozenClassifier(phi, Odd(), classes=TEST.classes).to_onnx(tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
    assert export._LARGEST_DIFFERENCE <= 1e-3
