"""Extraction: the numbers that the network's own library gives, in the right rows, from a network left as it was."""

import contextlib
import copy
import functools
import gc
import math
import resource
import shutil
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import nn
from torch.testing import assert_close

from frozenkit import from_torch, load_dataset
from frozenkit.errors import ActivationError, CacheError, FreezeError, FrozenkitWarning, InputError, UnknownNameError
from frozenkit.extraction.cache import CachedFeatures, FeatureCache
from frozenkit.extraction.extract import extract, extract_layers
from frozenkit.extraction.key import fingerprint_of
from frozenkit.features import FeatureSet
from frozenkit.fingerprint import Origin
from frozenkit.networks.backbone import Backbone, assert_frozen, load_backbone
from frozenkit.networks.layers import PRE_LOGITS, pool, pooled_activations
from frozenkit.networks.zoo import Preprocess
from tests.toy import Noise, stacked


@pytest.fixture(scope="module")
def lite0():
    return load_backbone("efficientnet-lite0", image_size=64, device="cpu")


@pytest.mark.parametrize(
    "name", ["resnet18", "efficientnet_b0", "mobilenetv3_small_100", "convnext_atto", "vit_tiny_patch16_224"]
)
def test_features_equal_timms_own_intermediates(name):
    backbone = load_backbone(f"timm/{name}", weights=None, image_size=224 if "vit" in name else 64, device="cpu")
    dataset = Noise(3)
    images = stacked(backbone, dataset)
    if "vit" in name:
        layers, pooling = ["blocks.3", "blocks.11"], "tokens"
        with torch.no_grad():
            _, inner = backbone.module.forward_intermediates(images, indices=[3, 11], output_fmt="NLC")
        expected = dict(zip(layers, inner, strict=True))  # patches alone
    else:
        infos = backbone.module.feature_info
        layers = list(dict.fromkeys(info["module"] for info in infos if info["module"] in backbone.layers))[-3:]
        places = [i for i, info in enumerate(infos) if info["module"] in layers]
        with torch.no_grad():
            _, inner = backbone.module.forward_intermediates(images, indices=places)
        pooling = "mean"
        expected = {layer: maps.mean((2, 3)) for layer, maps in zip(layers, inner, strict=True)}
    settings = {"layers": layers, "pooling": pooling, "precision": "exact", "progress": False}
    for batch_size in (1, 2, 3, 4):  # 1, n − 1, n, n + 1
        ours = extract_layers(backbone, dataset, batch_size=batch_size, **settings)
        for layer in layers:
            assert_close(ours[layer].features, expected[layer], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "mobilenet_v3_small"])
def test_features_equal_torchvisions_feature_extraction(name):
    from torchvision.models.feature_extraction import create_feature_extractor

    backbone = load_backbone(name, weights=None, image_size=64, device="cpu")
    layers = [stage for stage in backbone.stages if stage != PRE_LOGITS][-3:]
    dataset = Noise(3)
    with torch.no_grad():
        expected = create_feature_extractor(copy.deepcopy(backbone.module), layers)(stacked(backbone, dataset))
    settings = {"layers": layers, "pooling": "flatten", "precision": "exact", "progress": False}
    for batch_size in (1, 2, 3, 4):
        ours = extract_layers(backbone, dataset, batch_size=batch_size, **settings)
        for layer in layers:
            assert_close(ours[layer].features, expected[layer].flatten(1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 6, 7, 8])
def test_rows_keep_their_order_and_do_not_depend_on_the_batch(lite0, batch_size):
    dataset = Noise(7)
    layers = ["blocks.2", "global_pool"]
    ours = extract_layers(lite0, dataset, layers=layers, batch_size=batch_size, precision="exact", progress=False)
    for i in range(7):
        alone = pooled_activations(lite0.module, stacked(lite0, dataset)[i : i + 1], layers, "mean", lite0.trace())
        for layer in layers:
            assert_close(ours[layer].features[i], alone[layer][0], rtol=1e-4, atol=1e-5)
    assert ours["blocks.2"].ids == dataset.ids


def test_train_mode_would_have_mixed_the_batch_and_moved_the_buffers(lite0):
    """Trap 1, seen to fail: the same pass in train mode changes features with the neighbours, and the buffers."""
    module = copy.deepcopy(lite0.module).train()
    images = stacked(lite0, Noise(4))
    buffers = [n for n, _ in module.named_buffers()]
    before = {n: b.clone() for n, b in module.named_buffers()}
    with torch.no_grad():
        pair = pooled_activations(module, images[:2], ["blocks.6"], "mean", lite0.trace())["blocks.6"]
        four = pooled_activations(module, images, ["blocks.6"], "mean", lite0.trace())["blocks.6"]
    assert (pair - four[:2]).abs().max() > 0.01
    moved = [n for n, b in module.named_buffers() if (b != before[n]).any()]
    assert len(moved) > 0.8 * len(buffers)


@pytest.mark.parametrize("precision", ["exact", "fast"])
def test_backbone_is_bit_identical_afterwards_and_modes_are_given_back(lite0, precision):
    lite0.module.train()
    lite0.module.blocks[2].eval()
    modes = [m.training for m in lite0.module.modules()]
    with assert_frozen(lite0):
        extract_layers(lite0, Noise(5), layers=lite0.stages, precision=precision, progress=False)
    assert [m.training for m in lite0.module.modules()] == modes
    assert not any(m._forward_hooks for m in lite0.module.modules())
    lite0.module.eval()


def test_a_flipped_buffer_during_extraction_is_caught():
    backbone = load_backbone(image_size=64, device="cpu")

    class Saboteur(Noise):
        def __getitem__(self, i):
            if i == 3:
                backbone.module.bn1.running_mean.view(torch.int32)[0] ^= 1
            return super().__getitem__(i)

    with pytest.raises(FreezeError, match="the buffer 'bn1.running_mean' did"), assert_frozen(backbone):
        extract(backbone, Saboteur(5), precision="exact", progress=False)


def test_output_changed_later_in_place_is_reported_as_it_left_its_layer():
    """Trap 11: ResNet's batch norm is overwritten by the in-place ReLU that follows it."""
    backbone = load_backbone("resnet18", weights=None, image_size=64, device="cpu")
    dataset = Noise(2)
    alone = extract(backbone, dataset, layer="bn1", pooling="flatten", precision="exact", progress=False)
    together = extract_layers(
        backbone, dataset, layers=["bn1", "layer1"], pooling="flatten", precision="exact", progress=False
    )
    assert_close(alone.features, together["bn1"].features, rtol=0, atol=0)
    assert alone.features.min() < 0
    kept = {}
    handle = backbone.module.bn1.register_forward_hook(lambda _m, _i, out: kept.update(bn1=out))  # the broken variant
    with torch.no_grad():
        backbone.module(stacked(backbone, dataset))
    handle.remove()
    assert kept["bn1"].min() == 0


def test_the_pass_ends_after_the_last_layer_wanted(lite0):
    ran = []
    handle = lite0.module.blocks[4].register_forward_hook(lambda *_: ran.append(1))
    extract(lite0, Noise(2), layer="blocks.3", precision="exact", progress=False)
    assert not ran
    extract(lite0, Noise(2), layer="blocks.5", precision="exact", progress=False)
    handle.remove()
    assert ran


def test_fast_features_point_the_same_way(lite0):
    dataset = Noise(16)
    layers = list(lite0.stages[4:])
    exact = extract_layers(lite0, dataset, layers=layers, precision="exact", progress=False)
    fast = extract_layers(lite0, dataset, layers=layers, precision="fast", progress=False)
    for layer in layers:
        cosine = nn.functional.cosine_similarity(exact[layer].features, fast[layer].features)
        assert cosine.mean() > 0.98, layer
        assert fast[layer].features.dtype == torch.float32


def test_not_finite_activations_name_layer_and_images():
    class Explode(nn.Module):
        def forward(self, x):
            return torch.where(x.mean((1, 2, 3), keepdim=True) > 0.9, torch.inf, x)

    net = nn.Sequential(nn.Identity(), Explode(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    backbone = Backbone(net, Preprocess(32, 32), name="mine", device="cpu")
    dataset = Noise(5)
    dataset.pixels[3] = 255
    with pytest.raises(ActivationError, match="layer '1' must be finite, but are not for 1 images of a batch: noise-3"):
        extract(backbone, dataset, layer="1", progress=False)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"pooling": "median"}, InputError, "`pooling` must be one of mean, max"),
        ({"precision": "float16"}, InputError, "`precision` must be"),
        ({"batch_size": 0}, InputError, "`batch_size` must be at least 1"),
        ({"batch_size": 2.5}, InputError, "`batch_size` must be at least 1 and a whole number, got 2.5"),
        ({"layer": ["blocks.1", "blocks.2"]}, InputError, r"one layer, got list of length 2. For several: extract_lay"),
        ({"workers": 0}, InputError, "`workers` must be 'auto' or a whole number of at least 1, got 0"),
        ({"workers": "many"}, InputError, "got 'many'"),
        ({"layer": "blocks.9"}, UnknownNameError, "Did you mean 'blocks"),
        ({"lazy": True}, InputError, "needs `cache=FeatureCache"),
    ],
)
def test_arguments_that_do_not_fit(lite0, changes, error, message):
    with pytest.raises(error, match=message):
        extract(lite0, Noise(3), progress=False, **changes)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"backbone": "efficientnet-lite0"}, "`backbone` must be a Backbone, got str 'efficientnet-lite0'. Load one: "),
        ({"backbone": nn.Flatten()}, r"got the module Flatten. Wrap it: Backbone\(module, preprocess, image_size=…\)"),
        ({"backbone": None}, "`backbone` must be a Backbone, got None"),
        ({"backbone": Noise(3)}, "`backbone` must be a Backbone, got Noise"),
        ({"dataset": None}, "`dataset` must have a length and rows"),
        ({"dataset": FeatureSet.from_arrays(torch.eye(3))}, "`dataset` must hold images, got FeatureSet.* already"),
        ({"cache": "/tmp/x"}, r"`cache` must be a FeatureCache or None, got str '/tmp/x'. Try cache=FeatureCache\("),
        ({"cache": True}, "`cache` must be a FeatureCache or None, got bool True"),
    ],
)
def test_a_wrong_kind_is_told_the_way(lite0, wrong, message):
    given = {"backbone": lite0, "dataset": Noise(3)} | wrong
    for call in (extract, extract_layers, functools.partial(fingerprint_of, layer="blocks.1")):
        with pytest.raises(InputError, match=message):
            call(**given)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"layer": "nope"}, "`layer` must .*, got 'nope'"),
        ({"layer": None}, "`layer` must be the name of one layer, got None. List them: backbone.layers"),
        ({"layer": ["blocks.1"]}, "`layer` must be the name of one layer, got list"),
        ({"pooling": "Mean"}, "`pooling` must be one of mean, max, .*, got 'Mean'"),
        ({"pooling": None}, "`pooling` must be one of .*, got None"),
        ({"pooling": ["mean"]}, r"`pooling` must be one of .*, got \['mean'\]"),
        ({"storage": "foo"}, "`storage` must be one of float32, float16, bfloat16, got 'foo'"),
    ],
)
def test_a_key_is_only_of_what_extract_takes(lite0, wrong, message):
    with pytest.raises(InputError, match=message):
        fingerprint_of(lite0, Noise(3), **({"layer": "blocks.1"} | wrong))
    if "pooling" in wrong:
        with pytest.raises(InputError, match=message):
            extract(lite0, Noise(3), **wrong)
        with pytest.raises(InputError, match=message):
            pool(torch.zeros(1, 2, 2, 2), **wrong)


def test_anothers_dataset_with_ids_of_its_own_goes_through_from_torch(lite0):
    class Coco(list):
        ids, name, classes = (7, 9, 11), "coco", ("a", "b")

    images = [(Noise(3)[i][0], i % 2) for i in range(3)]
    settings = {"layer": "blocks.1", "precision": "exact", "progress": False}
    found, wanted = extract(lite0, Coco(images), **settings), extract(lite0, from_torch(images), **settings)
    assert_close(found.features, wanted.features, rtol=0, atol=0)
    assert (found.ids[0], found.classes) == ("Coco/0", ("a", "b"))


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([], "`layers` must name at least one"),
        (["blocks.1", "blocks.1"], "each once"),
        (5, "`layers` must be names of layers, got int 5. List them: backbone.layers"),
        ([["blocks.1"]], "`layers` must be names of layers, got list of length 1"),
    ],
)
def test_several_layers_are_named_once_each(lite0, layers, message):
    with pytest.raises(InputError, match=message):
        extract_layers(lite0, Noise(3), layers=layers, progress=False)


def test_one_layer_and_several_agree_and_the_stages_are_the_default(lite0):
    several = extract_layers(lite0, Noise(3), precision="exact", progress=False)
    assert list(several) == list(lite0.stages)
    alone = extract(lite0, Noise(3), layer="blocks.3", precision="exact", progress=False)
    assert_close(alone.features, several["blocks.3"].features, rtol=0, atol=0)
    assert extract(lite0, Noise(3), progress=False).layer == lite0.default_layer


def test_what_from_torch_takes_may_be_handed_in_as_it_is(lite0):
    images = [(Noise(3)[i][0], i % 2) for i in range(3)]
    settings = {"layer": "blocks.1", "precision": "exact", "progress": False}
    found, wanted = extract(lite0, images, **settings), extract(lite0, from_torch(images), **settings)
    assert_close(found.features, wanted.features, rtol=0, atol=0)
    assert found.fingerprint == wanted.fingerprint
    assert found.labels.tolist() == [0, 1, 0]


def test_features_do_not_depend_on_the_number_of_threads(lite0):
    settings = {"layer": "blocks.1", "precision": "exact", "progress": False, "batch_size": 40}
    one, many = (extract(lite0, Noise(90), workers=workers, **settings) for workers in (1, np.int64(5)))
    assert_close(one.features, many.features, rtol=0, atol=0)


def test_empty_dataset_is_refused(lite0):
    with pytest.raises(InputError, match="at least one image"):
        extract(lite0, Noise(0), progress=False)


def test_an_unreadable_image_stops_the_run_with_its_own_error_and_no_threads_left(lite0):
    import threading

    class Broken(Noise):
        def __getitem__(self, i):
            if i == 5:
                raise ValueError("image 5 is broken")
            return super().__getitem__(i)

    with pytest.raises(ValueError, match="image 5 is broken"):
        extract(lite0, Broken(9), batch_size=2, progress=False)
    assert not [t for t in threading.enumerate() if t.name.startswith("frozenkit")]


def test_progress_is_told_and_adds_up(lite0):
    told = []
    extract(lite0, Noise(5), batch_size=2, progress=lambda done, total: told.append((done, total)))
    assert told == [(2, 5), (4, 5), (5, 5)]


class Read(Noise):
    """Counts how many images are read."""

    reads = 0

    def __getitem__(self, i):
        self.reads += 1
        return super().__getitem__(i)


def test_warm_equals_cold_bit_for_bit_and_reads_no_image(lite0, tmp_path):
    cache = FeatureCache(tmp_path)
    layers = ["blocks.3", "global_pool"]
    none = extract_layers(lite0, Noise(6), layers=layers, precision="exact", progress=False)
    cold = extract_layers(lite0, Noise(6), layers=layers, precision="exact", cache=cache, progress=False)
    dataset = Read(6)
    warm = extract_layers(lite0, dataset, layers=layers, precision="exact", cache=cache, progress=False)
    assert not dataset.reads
    for layer in layers:
        assert_close(cold[layer].features, warm[layer].features, rtol=0, atol=0)
        assert_close(cold[layer].features, none[layer].features, rtol=0, atol=0)
        assert cold[layer].fingerprint == warm[layer].fingerprint == none[layer].fingerprint
        assert warm[layer].ids == cold[layer].ids


def test_only_the_missing_layers_are_computed(lite0, tmp_path):
    cache = FeatureCache(tmp_path)
    extract(lite0, Noise(4), layer="blocks.6", cache=cache, precision="exact", progress=False)
    ran = []
    handle = lite0.module.blocks[5].register_forward_hook(lambda _m, _i, out: ran.append(len(out)))
    extract_layers(lite0, Noise(4), layers=["blocks.2", "blocks.6"], cache=cache, precision="exact", progress=False)
    handle.remove()
    assert ran == [1]  # the key's own test image; the pass over the four images ended after blocks.2


def test_sizes_may_be_numpys_whole_numbers(tmp_path):
    backbone = load_backbone(image_size=np.int64(64), device="cpu")
    plain = load_backbone(image_size=64, device="cpu")
    settings = {"layer": "blocks.2", "precision": "exact", "progress": False, "cache": FeatureCache(tmp_path)}
    first = extract(backbone, Noise(4), batch_size=np.int64(3), **settings)
    dataset = Read(4)
    again = extract(plain, dataset, batch_size=3, **settings)
    assert not dataset.reads
    assert_close(first.features, again.features, rtol=0, atol=0)


def test_lazy_leaves_features_on_disk(lite0, tmp_path):
    lazy = extract(lite0, Noise(4), cache=FeatureCache(tmp_path), lazy=True, progress=False)
    assert isinstance(lazy, CachedFeatures)
    loaded = extract(lite0, Noise(4), cache=FeatureCache(tmp_path), progress=False)
    assert_close(lazy.load().features, loaded.features, rtol=0, atol=0)


def test_every_ingredient_changes_the_fingerprint(lite0):
    def key(backbone=lite0, dataset=None, **changes):
        settings = {"layer": "blocks.3", "precision": "exact", "progress": False, **changes}
        found = extract(backbone, dataset or Noise(2), **settings)
        return found.fingerprint

    touched = load_backbone(image_size=64, device="cpu")
    touched.module.bn1.running_var.view(torch.int32)[0] ^= 1
    brighter = load_backbone(image_size=64, device="cpu")
    brighter.preprocess = Preprocess(64, 73, mean=(0.5, 0.5, math.nextafter(0.5, 1)))
    variants = [
        key(),
        key(touched),
        key(brighter),
        key(load_backbone(image_size=65, device="cpu")),
        key(load_backbone(image_size=64, device="cpu", weights=None)),
        key(dataset=Noise(2, seed=1)),
        key(dataset=Noise(3)),
        key(layer="blocks.4"),
        key(pooling="max"),
    ]
    assert len(set(variants)) == len(variants)
    assert key() == key(load_backbone(image_size=64, device="cpu"))


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="torch before 2.9 has other switches")
def test_exact_is_exact_whatever_shortcuts_are_switched_on(lite0):
    """Matrix products and convolutions in bfloat16 or TF32 are process-wide switches; both are given back."""
    truth = extract(lite0, Noise(3), precision="exact", progress=False)
    backends: Any = torch.backends
    places = (backends.mkldnn.conv, backends.mkldnn.matmul, backends.cudnn.conv)
    before = [place.fp32_precision for place in places]
    try:
        for place, shortcut in zip(places, ("bf16", "bf16", "tf32"), strict=True):
            place.fp32_precision = shortcut
        ours = extract(lite0, Noise(3), precision="exact", progress=False)
        assert [place.fp32_precision for place in places] == ["bf16", "bf16", "tf32"]
    finally:
        for place, precision in zip(places, before, strict=True):
            place.fp32_precision = precision
    assert ours.fingerprint == truth.fingerprint
    assert_close(ours.features, truth.features, rtol=0, atol=0)


def test_storage_and_precision_are_part_of_the_key(lite0, tmp_path):
    prints = set()
    for storage in ("float32", "float16", "bfloat16"):
        cache = FeatureCache(tmp_path, storage=storage)
        found = extract(lite0, Noise(2), cache=cache, precision="exact", progress=False)
        prints.add(found.fingerprint)
    assert len(prints) == 3


def test_timm_is_what_the_embedded_backbone_is_made_of(lite0):
    assert isinstance(lite0.module, timm.models.EfficientNet)


def damage(cache, place):
    """Flips one bit: of a row, or of the labels, which only the digest covers."""
    (path,) = cache.root.glob("*.safetensors")
    header = CachedFeatures(path)._open().header
    at = header.blocks[place][0]
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("place", ["features", "labels"])
@pytest.mark.parametrize("whose", ["own", "shared"])
def test_a_damaged_entry_is_extracted_again_once_and_a_shared_one_left_alone(lite0, tmp_path, place, whose):
    settings = {"layer": "blocks.2", "precision": "exact", "progress": False}
    whole = extract(lite0, Noise(4), **settings)
    stored = FeatureCache(tmp_path / whose)
    extract(lite0, Noise(4), cache=stored, **settings)
    path = damage(stored, place)
    before = path.read_bytes()
    cache = FeatureCache(tmp_path / "own", shared=tmp_path / "shared")
    with pytest.warns(FrozenkitWarning, match="is damaged.*Extracting it again") as caught:
        again = extract(lite0, Noise(4), cache=cache, **settings)
    assert len(caught) == 1
    assert_close(again.features, whole.features, rtol=0, atol=0)
    assert list(cache.verify().values()) == ["ok"]
    assert (path.read_bytes() == before) == (whose == "shared")
    assert_close(extract(lite0, Noise(4), cache=cache, **settings).features, whole.features)  # and quietly


def test_without_locks_anothers_unfinished_file_is_left_alone(lite0, tmp_path, monkeypatch):
    import errno
    import fcntl

    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    settings = {"layer": "blocks.2", "precision": "exact", "progress": False}
    whole = extract(lite0, Noise(4), cache=FeatureCache(tmp_path / "first"), **settings)
    cache = FeatureCache(tmp_path / "second")
    others = cache.path(whole.fingerprint).with_suffix(".part")
    cache.root.mkdir()
    others.write_text("another process is writing here")
    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.warns(FrozenkitWarning, match="file system without locks"):
        found = extract(lite0, Noise(4), cache=cache, **settings)
    assert_close(found.features, whole.features, rtol=0, atol=0)
    assert others.read_text() == "another process is writing here"


def deep(layers=30):
    """A network of many layers, which costs nothing."""
    return Backbone(
        nn.Sequential(nn.Conv2d(3, 2, 3), *(nn.Identity() for _ in range(layers - 1))),
        to_tensor,
        image_size=48,
        device="cpu",
    )


def to_tensor(image):
    return torch.from_numpy(np.asarray(image, np.float32)).permute(2, 0, 1) / 255


def open_files():
    return len(list(Path("/dev/fd").iterdir()))


def test_a_cold_call_leaves_neither_open_files_nor_the_dataset_behind(tmp_path):
    """Seen to fail: the error that said "nothing is stored" kept its frames, with three files per layer."""
    backbone, cache, dataset = deep(), FeatureCache(tmp_path), Noise(2)
    extract(backbone, dataset, progress=False)  # whatever opens once
    gone, before = weakref.ref(dataset), open_files()
    gc.disable()
    try:
        extract_layers(backbone, dataset, layers=backbone.layers, cache=cache, progress=False)
        assert open_files() == before
        del dataset
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(("extra", "enough"), [(75, True), (25, False)])
def test_a_cold_call_needs_two_open_files_per_layer(tmp_path, extra, enough):
    """A lock and a part; too few are said before any work is done, with what to do."""
    backbone, cache = deep(), FeatureCache(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_files() + extra, hard))
    try:
        told = []
        with (
            contextlib.nullcontext()
            if enough
            else pytest.raises(CacheError, match="Too many open files. Ask for fewer")
        ):
            extract_layers(
                backbone, Noise(2), layers=backbone.layers, cache=cache, progress=lambda done, _: told.append(done)
            )
        assert (2 in told) is enough
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_an_interrupted_run_goes_on_in_smaller_batches_if_they_are_asked_for(tmp_path, lite0, monkeypatch):
    from frozenkit.extraction import extract as module

    settings, cache = {"precision": "exact", "progress": False}, FeatureCache(tmp_path)
    real, sizes = module.pooled_activations, []

    def out_of_memory(net, images, *rest):
        sizes.append(len(images))
        if len(images) > 2 and len(sizes) > 3:  # the fixed images of the fingerprint come before
            raise MemoryError
        return real(net, images, *rest)

    monkeypatch.setattr(module, "pooled_activations", out_of_memory)
    with pytest.raises(MemoryError):
        extract(lite0, Noise(24), batch_size=4, cache=cache, **settings)
    found = extract(lite0, Noise(24), batch_size=np.int64(2), cache=cache, **settings)
    assert max(sizes[-12:]) == 2
    assert found.shape[0] == 24


def test_an_entry_under_another_entrys_name_is_not_served(tmp_path, lite0):
    cache, settings = FeatureCache(tmp_path), {"precision": "exact", "progress": False}
    layers = ("blocks.1", "blocks.2")
    early, late = (extract(lite0, Noise(6), layer=layer, cache=cache, **settings) for layer in layers)
    shutil.copy(cache.path(early.fingerprint), cache.path(late.fingerprint))
    assert cache.verify()[early.fingerprint] == "ok"
    assert "not those that it is named after" in cache.verify()[late.fingerprint]
    with pytest.raises(CacheError, match="not those that it is named after"):
        cache.open(late.fingerprint)
    with pytest.warns(FrozenkitWarning, match=r"named after\..* Extracting it again"):
        again = extract(lite0, Noise(6), layer="blocks.2", cache=cache, **settings)
    assert_close(again.features, late.features, rtol=0, atol=0)


def test_features_say_how_they_were_made_from_the_network_from_the_cache_and_left_on_disk(lite0, tmp_path):
    digits = load_dataset("digits", limit=20)
    how = {"layer": "blocks.2", "pooling": "max", "precision": "exact", "progress": False}
    made = Origin(lite0.name, lite0.image_size, "max", "exact", "digits", 20, "load_dataset('digits', limit=20)")
    cache = FeatureCache(tmp_path)
    cold, warm = (extract(lite0, digits, cache=cache, **how) for _ in range(2))
    lazy = extract(lite0, digits, cache=cache, lazy=True, **how)
    assert [fs.origin for fs in (extract(lite0, digits, **how), cold, warm, lazy, lazy.load())] == [made] * 5
    assert cache.load(cold.fingerprint).origin == replace(made, code="")  # an entry serves equal images of any source
    assert extract(lite0, digits[:5], **how).origin == replace(made, n_images=5, code="")
    assert extract(lite0, Noise(3), **how).origin.dataset == "noise"
