"""Fine-tuning: the given backbone is untouched, val chooses, an interruption leaves no trace, one step equals AdamW."""

import copy
import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from frozenkit import assert_frozen, extract, finetune, fit_probe, from_torch, load_backbone, load_dataset, split
from frozenkit.comparison._checkpoint import Checkpoint
from frozenkit.comparison.finetuning import LEARNING_RATES, LEAST_LOSS, softening
from frozenkit.errors import CacheError, DataError, FrozenkitWarning, InputError, UnknownNameError
from frozenkit.networks.backbone import Backbone
from frozenkit.networks.zoo import Preprocess

LAYER = "global_pool"


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("efficientnet-lite0", image_size=32, device="cpu")


@pytest.fixture(scope="module")
def sets():
    images = load_dataset("emoji-google", limit=72)
    rows = split(images.labels, fractions=(0.6, 0.2, 0.2), seed=0)
    return [images.subset(part) for part in rows]


def tuned(backbone, sets, **kw):
    settings = {"start": "zero", "lr": 1e-3, "epochs": 2, "batch_size": 16, "progress": False, "device": "cpu"}
    return finetune(backbone, sets[0], sets[1], **settings | kw)


def same_weights(a, b):
    for one, other in ((a.backbone.module, b.backbone.module), (a.head, b.head)):
        torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=0, atol=0)


def changed(before: nn.Module, after: nn.Module) -> set[str]:
    theirs = after.state_dict()
    return {name for name, value in before.state_dict().items() if (value != theirs[name]).any()}


def test_the_given_backbone_is_untouched_and_what_comes_back_predicts(backbone, sets):
    with assert_frozen(backbone):
        found = tuned(backbone, sets)
    assert changed(backbone.module, found.backbone.module)
    assert [row["epoch"] for row in found.history] == [0, 1, 2]
    best = max(found.history[1:], key=lambda row: (row["val_score"], -row["val_loss"]))
    assert found.best_epoch == best["epoch"]
    val = found.score(sets[1])
    assert val.accuracy == pytest.approx(found.val_score)  # the kept weights are those of the best epoch
    torch.testing.assert_close(found.predict(sets[2]), found.predict_proba(sets[2]).argmax(1))
    assert not any(p.requires_grad for p in found.backbone.module.parameters())
    assert list(found.to_frame().columns) == ["lr", "train_loss", "val_loss", "val_score", "seconds"]


def test_one_epoch_of_one_batch_is_one_step_of_adamw_on_the_whole_network(backbone, sets):
    found = tuned(backbone, sets, epochs=1, batch_size=1_000, start="zero", lr=1e-3)
    # The same by hand: timm's own forward pass, torch's AdamW, no code of ours but the preprocessing.
    module = copy.deepcopy(backbone.module).requires_grad_(True).eval()
    head = nn.Linear(1280, len(sets[0].classes))
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    parameters = [p for n, p in [*module.named_parameters(), *head.named_parameters()] if "classifier" not in n]
    decayed = [p for p in parameters if p.ndim >= 2]
    free = [p for p in parameters if p.ndim < 2]
    optimiser = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.01}, {"params": free, "weight_decay": 0}], 1e-3
    )
    images = torch.stack([backbone.preprocess(sets[0][i][0]) for i in range(len(sets[0]))])
    features = module.global_pool(module.forward_features(images))
    loss = nn.functional.cross_entropy(head(features), torch.as_tensor(sets[0].labels))
    loss.backward()
    optimiser.step()
    assert found.history[1]["train_loss"] == pytest.approx(float(loss.detach()), abs=1e-5)
    # Of a zero head every logit's gradient is known exactly; Adam's first step is ±lr wherever it is not zero.
    torch.testing.assert_close(found.head.linear.bias, head.bias.detach(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.head.linear.weight, head.weight.detach(), rtol=0, atol=2e-5)


def test_an_interruption_leaves_no_trace(backbone, sets, tmp_path):
    place = tmp_path / "deep" / "tuning.pt"
    settings = {"epochs": 3, "lr": [1e-3, 3e-4], "augment": "crop"}

    def stop_at(limit):
        def progress(done, total):
            assert total == 2 * 3 * len(sets[0])
            if done > limit:
                raise KeyboardInterrupt

        return progress

    whole = tuned(backbone, sets, **settings)
    for images in (30, 60, 190):  # in the first epoch, the second, and at the second rate
        with pytest.raises(KeyboardInterrupt):
            tuned(backbone, sets, **settings, checkpoint=place, progress=stop_at(images))
    seen = []
    resumed = tuned(backbone, sets, **settings, checkpoint=place, progress=lambda done, total: seen.append(done))
    same_weights(resumed, whole)
    strip = [[{k: v for k, v in row.items() if k != "seconds"} for row in f.history[1:]] for f in (whole, resumed)]
    assert strip[0] == strip[1]
    assert seen[0] > 100  # it did not start anew
    assert seen[-1] == 2 * 3 * len(sets[0])
    assert list(place.parent.iterdir()) == []


def test_killed_after_any_write_it_ends_the_same(backbone, sets, tmp_path, monkeypatch):
    """Seen to fail after the epoch that uses the patience up: one epoch more was trained."""
    settings = {"epochs": 4, "lr": [1e-12, 3e-4], "patience": 1, "start": "probe", "batch_size": np.int64(43)}
    whole = tuned(backbone, sets, **settings)
    write, place = Checkpoint.write, tmp_path / "tuning.pt"
    for last in range(1, 99):
        writes = 0

        def write_and_die(self, content, last=last):
            nonlocal writes
            write(self, content)
            writes += 1
            if writes == last:
                raise KeyboardInterrupt

        monkeypatch.setattr(Checkpoint, "write", write_and_die)
        try:
            tuned(backbone, sets, **settings, checkpoint=place)
        except KeyboardInterrupt:
            monkeypatch.setattr(Checkpoint, "write", write)
            resumed = tuned(backbone, sets, **settings, checkpoint=place)
            same_weights(resumed, whole)
            assert (resumed.trials, resumed.lr) == (whole.trials, whole.lr)
            assert len(resumed.history) == len(whole.history)
        else:
            break
    assert last > 5


def test_a_checkpoint_of_another_run_or_a_damaged_one_is_refused(backbone, sets, tmp_path):
    place = tmp_path / "tuning.pt"

    def stop(done, total):
        if done > len(sets[0]):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tuned(backbone, sets, checkpoint=place, progress=stop)
    with pytest.raises(CacheError, match="other images, another backbone or other settings"):
        tuned(backbone, sets, checkpoint=place, seed=1)
    with pytest.raises(CacheError, match="other settings"):
        tuned(backbone, sets, checkpoint=place, patience=1)

    def preprocessing(shift):
        usual = backbone.preprocess
        return Backbone(backbone.module, lambda image: usual(image) - shift, image_size=32, device="cpu")

    elsewhere = tmp_path / "own.pt"
    with pytest.raises(KeyboardInterrupt):
        tuned(preprocessing(0.1), sets, checkpoint=elsewhere, progress=stop)
    with pytest.raises(CacheError, match="other images, another backbone or other settings"):
        tuned(preprocessing(0.2), sets, checkpoint=elsewhere)
    tuned(preprocessing(0.1), sets, checkpoint=elsewhere)  # equal, though at another address
    place.write_bytes(place.read_bytes()[:1000])
    with pytest.raises(CacheError, match="cannot be read"):
        tuned(backbone, sets, checkpoint=place)


@pytest.mark.parametrize("scale", ["soft", "unit"])
def test_a_probe_start_begins_at_the_probe(backbone, sets, scale):
    features = [extract(backbone, part, layer=LAYER, precision="exact", progress=False) for part in sets]
    probe = fit_probe(features[0], val=features[1], scale=scale)
    found = tuned(backbone, sets, start=probe, epochs=1)
    assert found.history[0]["val_score"] == pytest.approx(probe.score(features[1]).accuracy)
    if scale == "soft":
        same_weights(found, tuned(backbone, sets, start="probe", epochs=1))
    loss = nn.functional.cross_entropy(probe.logits(features[1]) / probe.temperature, features[1].labels)
    assert found.history[0]["val_loss"] == pytest.approx(float(loss), abs=1e-4)


@pytest.fixture(scope="module")
def clothes():
    """60 images of shirts and boots, 20 for val, 100 to test: every probe separates them."""
    images = load_dataset("fashion-mnist", limit=1500, seed=0)
    rows = [i for i in range(len(images)) if images.labels[i] in (0, 9)][:180]
    both = from_torch([(images[i][0], int(images.labels[i] == 9)) for i in rows], classes=("shirt", "boot"))
    return [both.subset(range(*span)) for span in ((0, 60), (60, 80), (80, 180))]


def test_a_probe_that_is_certain_of_everything_still_learns(clothes):
    backbone = load_backbone(image_size=64, device="cpu")
    features = extract(backbone, clothes[0], precision="exact", progress=False)
    certain = replace(fit_probe(features), temperature=4e-4)  # of a perfect leave-one-out without smoothing
    logits = certain.head(features.features) / certain.temperature
    assert float(nn.functional.cross_entropy(logits, features.labels)) == 0.0  # no gradient at all
    found = {
        name: finetune(backbone, *clothes[:2], start=start, epochs=3, lr=3e-4, progress=False, device="cpu")
        for name, start in (("certain", certain), ("zero", "zero"))
    }
    labels = torch.as_tensor(clothes[2].labels)
    nll = {name: float(nn.functional.cross_entropy(f.logits(clothes[2]), labels)) for name, f in found.items()}
    losses = [row["train_loss"] for row in found["certain"].history[1:]]
    assert losses[-1] < min(LEAST_LOSS, losses[0])
    assert nll["certain"] < nll["zero"] + 0.02


def test_softening_by_hand():
    sure = torch.tensor([[50.0, 0.0], [0.0, 50.0]])
    labels = torch.tensor([0, 1])
    factor = softening(sure, labels)
    assert 50 / factor == pytest.approx(-math.log(math.expm1(LEAST_LOSS)))
    assert softening(sure / factor, labels) == pytest.approx(1.0)
    assert softening(torch.zeros(2, 2), labels) == 1.0
    assert softening(-sure, labels) == 1.0  # wrong is no reason to soften: the loss has a gradient
    huge = softening(1e30 * sure, labels)
    assert 50e30 / huge == pytest.approx(50 / factor)


@pytest.mark.parametrize(
    ("rates", "note"),
    [
        (1e-4, "the only rate tried, so not chosen"),
        ([1e-7, 1e-8], "the (highest|lowest) rate tried: extend `lr` (up|down)wards, such as "),
        ([1e25, 1e-4, 1e-9], ""),
    ],
)
def test_a_rate_that_was_not_chosen_or_lies_at_the_edge_is_noted(backbone, sets, rates, note):
    found = tuned(backbone, sets, lr=rates, epochs=1)
    assert re.match(note, found.note)
    assert (f"({found.note})" in repr(found)) == bool(found.note)


def test_notes_say_which_way_to_extend(backbone, sets):
    found = tuned(backbone, sets, epochs=1)
    high, low, inside = (
        replace(found, trials=dict.fromkeys(rates, 0.5)) for rates in ([1e-4, 1e-3], [1e-3, 3e-3], [1e-4, 1e-3, 3e-3])
    )
    assert high.note == "the highest rate tried: extend `lr` upwards, such as 0.003"
    assert low.note == "the lowest rate tried: extend `lr` downwards, such as 0.0003"
    assert inside.note == ""


@pytest.mark.parametrize("layer", ["conv_stem", "bn1", "blocks.0", "blocks.2.1.conv_dw", "blocks.4", "conv_head"])
def test_any_layer_can_be_tuned_from_and_nothing_after_it_moves(backbone, sets, layer):
    found = tuned(backbone, sets, layer=layer, start="probe", epochs=1)
    assert found.layer == found.backbone.default_layer == layer
    assert found.head.linear.in_features == extract(backbone, sets[2], layer=layer, progress=False).n_features
    order = backbone.layers
    moved = {name.rpartition(".")[0] for name in changed(backbone.module, found.backbone.module)}
    assert moved
    assert max(order.index(name) for name in moved) <= order.index(layer)
    assert found.score(sets[2]).n == len(sets[2])


def test_a_transformer_is_tuned_from_what_its_classifier_reads(sets):
    import timm

    torch.manual_seed(0)
    module = timm.create_model("vit_tiny_patch16_224", img_size=32)
    vit = Backbone(module, Preprocess(32, 32), n_prefix_tokens=1, device="cpu")
    found = tuned(vit, sets, epochs=1)
    assert found.backbone.n_prefix_tokens == 1
    moved = {name.partition(".")[0] for name in changed(vit.module, found.backbone.module)}
    assert (found.layer, moved) == ("pre_logits", {"cls_token", "pos_embed", "patch_embed", "blocks", "norm"})


def test_the_learning_rate_is_chosen_on_val(backbone, sets):
    rates = [1e-6, 1e-3]
    found = tuned(backbone, sets, lr=rates)
    alone = {rate: tuned(backbone, sets, lr=rate) for rate in rates}
    assert found.trials == {rate: pytest.approx(run.val_score) for rate, run in alone.items()}
    merit = {rate: (run.val_score, -run.history[run.best_epoch]["val_loss"]) for rate, run in alone.items()}
    assert found.lr == max(rates, key=merit.__getitem__)
    same_weights(found, alone[found.lr])
    assert len(LEARNING_RATES) == 3


def test_a_rate_that_diverges_only_loses(backbone, sets):
    found = tuned(backbone, sets, lr=[1e25, 1e-4])
    assert found.lr == 1e-4
    assert math.isnan(found.trials[1e25])
    with pytest.raises(DataError, match="did not at any learning rate of .1e.25"):
        tuned(backbone, sets, lr=1e25)


@pytest.mark.parametrize("unfreeze", [0, 1, 2])
def test_only_the_last_stages_change(backbone, sets, unfreeze):
    found = tuned(backbone, sets, unfreeze=unfreeze, epochs=1)
    moved = {name.rpartition(".")[0] for name in changed(backbone.module, found.backbone.module)}
    stages = [s for s in backbone.stages if s != LAYER]
    frozen = stages[: len(stages) - unfreeze]
    assert not any(name == s or name.startswith(f"{s}.") for name in moved for s in frozen)
    if unfreeze == 0:
        assert not moved
    else:
        assert any(name == stages[-1] or name.startswith(f"{stages[-1]}.") for name in moved)


def test_batch_norm_keeps_or_renews_its_statistics(backbone, sets):
    kept, renewed = tuned(backbone, sets, epochs=1), tuned(backbone, sets, epochs=1, batch_norm="train")
    assert not {n for n in changed(backbone.module, kept.backbone.module) if "running" in n}
    assert {n for n in changed(backbone.module, renewed.backbone.module) if "running" in n}
    half = tuned(backbone, sets, epochs=1, batch_norm="train", unfreeze=1)
    moved = {n for n in changed(backbone.module, half.backbone.module) if "running" in n}
    assert moved
    assert not any(n.startswith(("blocks.0", "bn1", "conv_stem")) for n in moved)


def test_the_same_seed_gives_the_same_network_and_another_another(backbone, sets):
    one, two, other = (tuned(backbone, sets, epochs=1, augment="flip", seed=seed) for seed in (0, 0, 1))
    same_weights(one, two)
    assert changed(one.backbone.module, other.backbone.module)


def test_patience_ends_it(backbone, sets):
    found = tuned(backbone, sets, epochs=6, start="probe", lr=1e-12, patience=1)  # nothing moves or gets better
    assert len(found.history) - 1 == found.best_epoch + 1 < 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 0.0}, "`lr` must be positive numbers, got .0.0."),
        ({"lr": []}, "`lr` must be positive"),
        ({"lr": "1e-3"}, "`lr` must be an array of numbers, got str"),
        ({"lr": None}, "`lr` must be a number, got None"),
        ({"lr": True}, "`lr` must be a number, got bool"),
        ({"epochs": 0}, "`epochs` must be a whole number of at least 1, got 0"),
        ({"epochs": "2"}, "`epochs` must be a whole number"),
        ({"batch_size": 0}, "`batch_size` must be a whole number of at least 1"),
        ({"batch_size": 2.0}, "`batch_size` must be a whole number"),
        ({"patience": 0}, "`patience` must be a whole number of at least 1"),
        ({"seed": "a"}, "`seed` must be a whole number"),
        ({"start": None}, "`start` must be a known name, got None. Choose from 'probe'"),
        ({"unfreeze": 99}, r"`unfreeze` must be 'all' or a number of stages in 0\.\.9, got 99"),
        ({"unfreeze": "some"}, "`unfreeze` must be 'all'"),
        ({"batch_norm": "off"}, "`batch_norm` must be a known name"),
        ({"augment": "flop"}, "Did you mean 'flip'"),
        ({"precision": "half"}, "`precision` must be a known name"),
        ({"start": "prob"}, "Did you mean 'probe'"),
        ({"layer": "blocks.9"}, "Did you mean 'blocks"),
    ],
)
def test_settings_out_of_range(backbone, sets, change, message):
    with pytest.raises((InputError, UnknownNameError), match=message):
        tuned(backbone, sets, **change)


def test_sets_that_do_not_fit(backbone, sets):
    other = load_dataset("digits", limit=20)
    with pytest.raises(InputError, match="`val` must have the classes .* got 0, 1.*Load both alike"):
        finetune(backbone, sets[0], other, progress=False)
    with pytest.raises(InputError, match="`val` must hold other images than train"):
        finetune(backbone, sets[0], sets[0], progress=False)
    with pytest.raises(InputError, match="`val` must be an ImageDataset, got list of length 1. See `image_folder"):
        finetune(backbone, sets[0], [1], progress=False)
    with pytest.raises(InputError, match="`backbone` must be a Backbone, got str 'efficientnet-lite0'. Load one: loa"):
        finetune("efficientnet-lite0", *sets[:2], progress=False)
    with pytest.raises(DataError, match="must hold images, at least two and one"):
        finetune(backbone, sets[0].subset([0]), sets[1], progress=False)
    features = extract(backbone, sets[0], layer="blocks.6", precision="exact", progress=False)
    with pytest.raises(InputError, match="`start` must be a ridge or softmax probe of 'global_pool'"):
        tuned(backbone, sets, start=fit_probe(features))
    first = extract(backbone, sets[0], precision="exact", progress=False)
    with pytest.warns(FrozenkitWarning, match="2 of 5 classes have no training image"):
        partial = fit_probe(first.subset((first.labels < 3).nonzero().flatten()))
    with pytest.raises(InputError, match="`start` must know every class, got one of 3 out of 5"):
        tuned(backbone, sets, start=partial)
    with pytest.raises(InputError, match="`dataset` must have the classes"):
        tuned(backbone, sets, epochs=1).score(other)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_on_a_gpu(sets):
    gpu = load_backbone("efficientnet-lite0", image_size=32, device="cuda")
    found = finetune(gpu, sets[0], sets[1], lr=1e-3, epochs=2, progress=False, device="cuda")
    assert found.score(sets[2]).n == len(sets[2])
