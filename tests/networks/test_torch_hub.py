"""torch.hub: code of a repository runs only where that was allowed, and its network is read as any other."""

import sys

import pytest
import torch
from torch.testing import assert_close

from frozenkit import extract, load_backbone
from frozenkit.errors import DataError, InputError, NotAvailableError
from tests.toy import Noise, stacked

HUBCONF = """
import pathlib, torch
pathlib.Path(__file__).with_name("ran").touch()
dependencies = ["torch"]

class Net(torch.nn.Module):
    def __init__(self, bias):
        super().__init__()
        self.proj = torch.nn.Conv2d(3, 4, 16, 16)
        self.cls_token = torch.nn.Parameter(torch.full((1, 1, 4), float(bias)))
        self.norm = torch.nn.LayerNorm(4)

    def forward(self, x):
        patches = self.proj(x).flatten(2).transpose(1, 2)
        return self.norm(torch.cat([self.cls_token.expand(len(x), -1, -1), patches], 1))[:, 0]

def old(pretrained=True):
    return Net(1 if pretrained else 2)

def new(*, weights=None, progress=True):
    return Net({"DEFAULT": 3, "OTHER": 4, None: 5}[weights])

def plain():
    return Net(6)

def broken(pretrained=True):
    raise RuntimeError("a package is missing\\nand more")

def mistaken(pretrained=True):
    return Net()

def number(pretrained=True):
    return 3
"""


@pytest.fixture
def repository(tmp_path):
    (tmp_path / "hubconf.py").write_text(HUBCONF)
    yield tmp_path
    sys.modules.pop("hubconf", None)


def bias(backbone):
    return float(backbone.module.cls_token[0, 0, 0])


def test_no_code_runs_unasked(repository):
    for trust in (False, None, "yes", 1):
        with pytest.raises(InputError, match=r"'hub:.*/old' runs the Python code of .*, with your rights.*trust=True"):
            load_backbone(f"hub:{repository}/old", trust=trust)
    assert not (repository / "ran").exists()
    load_backbone(f"hub:{repository}/old", trust=True, device="cpu")
    assert (repository / "ran").exists()


def test_an_entry_is_read_as_any_network(repository):
    backbone = load_backbone(f"hub:{repository}/old", trust=True, image_size=64, device="cpu")
    images = Noise(3)
    assert (backbone.n_prefix_tokens, backbone.trace().prefix("norm")) == (1, 1)
    with torch.no_grad():
        theirs = backbone.module(stacked(backbone, images))
    assert_close(extract(backbone, images, precision="exact", progress=False).features, theirs)
    cls = extract(backbone, images, layer="norm", pooling="cls", precision="exact", progress=False)
    assert_close(cls.features, theirs)
    pixels = backbone.preprocess(images[0][0])
    assert (backbone.preprocess.mean, backbone.preprocess.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert pixels.shape == (3, 64, 64)


def test_weights_are_asked_for_by_the_entrys_own_argument(repository):
    def of(entry, weights="default"):
        return bias(load_backbone(f"hub:{repository}/{entry}", weights=weights, trust=True, device="cpu"))

    assert [of("old"), of("old", None), of("new"), of("new", None), of("new", "OTHER"), of("plain")] == [
        1,
        2,
        3,
        5,
        4,
        6,
    ]
    for weights in (None, "OTHER"):
        with pytest.raises(InputError, match=r"`weights` must be 'default' for the entry 'plain' of .*, got"):
            of("plain", weights)


def test_random_weights_are_seeded(repository):
    def digest(seed):
        return load_backbone(f"hub:{repository}/old", weights=None, seed=seed, trust=True, device="cpu").digest

    assert digest(0) == digest(0) != digest(1)


@pytest.mark.parametrize(
    ("entry", "error", "message"),
    [
        ("broken", DataError, "the entry 'broken' of .* failed: RuntimeError: a package is missing.$"),
        ("mistaken", DataError, "the entry 'mistaken' of .* failed: TypeError: .*missing 1 required"),
        ("number", DataError, "the entry 'number' of .* must give a torch module, got int"),
        ("absent", DataError, "the entry 'absent' of .* failed: RuntimeError: Cannot find callable absent"),
    ],
)
def test_code_that_fails_is_named(repository, entry, error, message):
    with pytest.raises(error, match=message):
        load_backbone(f"hub:{repository}/{entry}", trust=True)


def test_names_and_folders_that_lead_nowhere(tmp_path, monkeypatch):
    for name in ("hub:", "hub:entry", "hub:owner/entry", "hub:a/b/c/d"):
        with pytest.raises(
            InputError, match=f"'hub:<owner>/<repository>/<entry>' or 'hub:/path/to/<entry>', got '{name}'"
        ):
            load_backbone(name, trust=True)
    with pytest.raises(NotAvailableError, match="`name` must lead to a folder that holds hubconf.py, got"):
        load_backbone(f"hub:{tmp_path}/entry", trust=True)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(
        NotAvailableError, match=r"hub:owner/repository:main/entry are not on this machine .*get_dir\(\)"
    ):
        load_backbone("hub:owner/repository:main/entry", trust=True)
