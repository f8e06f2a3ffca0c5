import pytest
import torch
from torch import nn
from torchvision.transforms.functional import pil_to_tensor

from frozenkit.comparison.controls import _score_ridge, control_scores, randomized, raw_pixels
from frozenkit.errors import InputError
from frozenkit.extraction.extract import extract
from frozenkit.images.catalog import load_dataset
from frozenkit.images.pairs import from_torch
from frozenkit.networks.backbone import Backbone, load_backbone
from frozenkit.probes.selectivity import shuffled

TRAIN = load_dataset("digits", limit=200)
TEST = load_dataset("digits", split="test", limit=200)


def prepare(image):
    return pil_to_tensor(image.resize((32, 32))).float() / 255


@pytest.fixture
def backbone():
    torch.manual_seed(7)
    trunk = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten())
    net = nn.Sequential(trunk, nn.Linear(128, 10))
    return Backbone(net, prepare, name="tiny", image_size=32, default_layer="0", device="cpu")


def test_controls_are_four_and_in_order(backbone):
    found = control_scores(TRAIN, TEST, backbone, progress=False)
    assert list(found) == ["majority", "shuffled labels", "raw pixels", "random weights"]
    assert all(score.n == len(TEST) for score in found.values())
    assert found["majority"].accuracy < 0.15
    assert found["shuffled labels"].low < 0.1 < found["shuffled labels"].high
    assert found["raw pixels"].accuracy > 0.85


def test_controls_repeat_by_seed_and_take_features_at_hand(backbone):
    train, test = (extract(backbone, images, progress=False) for images in (TRAIN, TEST))
    first = control_scores(TRAIN, TEST, backbone, progress=False)
    again = control_scores(TRAIN, TEST, backbone, features=(train, test), progress=False)
    assert {k: v.accuracy for k, v in first.items()} == {k: v.accuracy for k, v in again.items()}
    with pytest.raises(InputError, match="must be those of '0' for the train images"):
        control_scores(TRAIN, TEST, backbone, features=(test, train))


def test_classes_must_agree(backbone):
    with pytest.raises(InputError, match="`test_images` must have the classes .* in this order, got "):
        control_scores(TRAIN, load_dataset("fashion-mnist", split="test", limit=20), backbone)


def test_random_weights_differ_and_leave_the_backbone_and_the_seed_alone(backbone):
    before, state = backbone.digest, torch.get_rng_state()
    one, two, other = (randomized(backbone, seed=seed) for seed in (0, 0, 1))
    assert one.digest == two.digest != other.digest
    assert before == backbone.digest != one.digest
    torch.testing.assert_close(torch.get_rng_state(), state)


def test_random_weights_of_a_named_backbone_keep_preprocessing_and_layer():
    named = load_backbone(image_size=64, device="cpu")
    random = randomized(named)
    assert (random.default_layer, random.image_size) == (named.default_layer, 64)
    assert random.preprocess is named.preprocess
    assert random.n_prefix_tokens == named.n_prefix_tokens == 0
    assert random.digest != named.digest


@pytest.mark.parametrize("name", ["resnet18", "timm/nothing_like_it"])
def test_a_module_that_only_bears_a_known_name_stays_its_own_control(backbone, name):
    own = Backbone(backbone.module, prepare, name=name, image_size=32, default_layer="0", device="cpu")
    random = randomized(own)
    assert repr(random.module) == repr(own.module)
    assert random.digest == randomized(backbone).digest != own.digest


def test_a_part_that_cannot_be_reset_is_named():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3, 1, 1))

        def forward(self, x):
            return x * self.scale

    stiff = Backbone(nn.Sequential(Scale(), nn.Flatten()), prepare, image_size=32, default_layer="1", device="cpu")
    with pytest.raises(InputError, match="'0' has parameters and no `reset_parameters`"):
        randomized(stiff)


def test_one_permutation_alone_strays_further_than_its_interval_says(backbone):
    train, test = (extract(backbone, images, progress=False) for images in (TRAIN, TEST))
    found = [_score_ridge(shuffled(train, seed=seed), test) for seed in range(20)]
    assert sum(score.low < 0.1 < score.high for score in found) < 18  # nominal: 19 of 20
    assert abs(sum(score.accuracy for score in found) / 20 - 0.1) < 0.03


def test_raw_pixels_are_the_images_at_native_size_in_grey():
    (pixels,) = raw_pixels(TRAIN)
    assert pixels.features.shape == (200, 64)
    expected = pil_to_tensor(TRAIN[3][0])[0].flatten().float() / 255
    torch.testing.assert_close(pixels.features[3], expected)
    assert pixels.ids == TRAIN.ids


def test_raw_pixels_of_unequal_sizes_are_made_equal():
    images = [(torch.rand(3, 8 + i, 12), i % 2) for i in range(4)]
    (pixels,) = raw_pixels(from_torch(images, classes=("a", "b")))
    assert pixels.features.shape == (4, 3 * 8 * 12)


@pytest.mark.parametrize("pooling", ["mean", "max", "pyramid"])
def test_random_weights_are_pooled_as_the_features_are(pooling):
    """A network that is random itself leads random weights by nothing, however it is pooled."""
    torch.manual_seed(7)
    net = nn.Sequential(nn.Conv2d(3, 8, 5, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
    tiny = randomized(Backbone(net, prepare, name="tiny", image_size=32, default_layer="1", device="cpu"), seed=0)
    pair = tuple(extract(tiny, images, layer="1", pooling=pooling, progress=False) for images in (TRAIN, TEST))
    found = control_scores(TRAIN, TEST, tiny, layer="1", features=pair, progress=False)
    assert found["random weights"].accuracy == _score_ridge(*pair).accuracy


def test_features_that_the_control_cannot_match_are_refused(backbone):
    def features(pooling, source=backbone):
        return [extract(source, images, layer="0.2", pooling=pooling, progress=False) for images in (TRAIN, TEST)]

    def controls(train, test):
        return control_scores(TRAIN, TEST, backbone, layer="0.2", features=(train, test), progress=False)

    mean, pyramid = features("mean"), features("pyramid")
    with pytest.raises(InputError, match="must be pooled alike, from images of 32 pixels, got 'mean' at 32 and 'pyr"):
        controls(mean[0], pyramid[1])
    with pytest.raises(InputError, match="must be what `extract` gives at '0.2' with pooling='mean', 8 wide, got Feat"):
        controls(*(part.with_features(part.features) for part in pyramid))  # which do not say how they were made
    other = Backbone(backbone.module, prepare, name="tiny", image_size=48, default_layer="0", device="cpu")
    with pytest.raises(InputError, match="from images of 32 pixels, got 'mean' at 48"):
        controls(*features("mean", other))


@pytest.mark.parametrize("library", ["hf", "open_clip"])
def test_networks_of_other_libraries_are_built_anew(library, tmp_path):
    from tests.networks import test_huggingface, test_open_clip

    if library == "hf":
        name = f"hf:{test_huggingface.save(tmp_path / 'dinov2', 'dinov2')}"
    else:
        name = f"open_clip:{test_open_clip.save(tmp_path / 'vit', 'vit')}"
    backbone = load_backbone(name, image_size=112, device="cpu")
    a, b, c = (randomized(backbone, seed=seed) for seed in (0, 0, 1))
    assert len({backbone.digest, a.digest, c.digest}) == 3
    assert a.digest == b.digest
    assert (a.default_layer, a.image_size, a.preprocess) == ("features", 112, backbone.preprocess)
