"""Makes the bundled photographs from two Debian packages; kept so that anyone can make them again.

::

    apt-get download tuxpaint-stamps-default gcompris-qt-data    # and unpack each: dpkg-deb -x PACKAGE.deb FOLDER
    python tools/make_photos.py TUXPAINT_FOLDER GCOMPRIS_FOLDER

Cut-outs stand on white, centred; scenes are cut to a square. Every image was looked at: drawings, toys, mirrored copies
and second views of one building are left out. ``photos.json`` holds author, licence and source of each, and which of
the bundled emoji are drawings of the same classes. Prints the sha256 sums that `frozenkit.images.catalog` checks.
"""

import hashlib
import json
import re
import struct
import sys
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from frozenkit.splits import split
from tools.make_bundle import BUNDLED, on_white, sheet

SIDE, MARGIN, MOST_ENLARGED = 144, 6, 2.5
CLASSES = ("mammal", "bird", "sea animal", "flower", "fruit", "vegetable", "tool", "building")

# Folders of Tux Paint's stamps, with what is left out: drawings, silhouettes, toys, mirrored copies, images that cannot
# be made out, and the avocado, which is a fruit in one collection and a vegetable in the other.
STAMPS = {
    "mammal": (
        "animals/mammals animals/marsupials",
        "echidna hedgehog edward_bear dolphin orca sea_lion whale gnu-baby gnu-baby-standing gnu-sitting donkey_eating "
        "pig_golden2 cow_white rabbit-2 rabbit_little lion-2 tiger_sumatran caribou wapiti zebu bull badger rat ferret "
        "tamarin_emperor dingo sheep_lamb capybara",
    ),
    "bird": ("animals/birds", "albino_peahen quetzal"),
    "sea animal": ("animals/fish animals/shellfish", "shrimp murray-mussel"),
    "flower": ("plants/flowers", "chuvanna_plastic_poo appooppanthady"),
    "fruit": ("food/fruit", "avocado banana strawberry"),
    "vegetable": ("food/vegetables", "garlics"),
    "tool": ("household/tools", "measuring_tape_mirror cementmixer wrench_adjustable"),
}
SEA_MAMMALS = ("dolphin", "orca", "sea_lion", "whale")
# Where Tux Paint's change log names more than the collection: name → (author, licence, source).
TUXPAINT_PAGE = "https://sourceforge.net/projects/tuxpaint"
WIKIMEDIA = "https://commons.wikimedia.org/wiki/File:"
CREDITED = {
    **dict.fromkeys(
        ("adeenia", "anthoorium", "bolsom", "chemparathi"),
        ("VHSS Irimpanam school, Kerala", "CC-BY-SA-3.0", TUXPAINT_PAGE),
    ),
    **dict.fromkeys(
        ("pelican", "heron_greatblue", "heron_greatblue_flying"), ("Erinn Lynch", "CC-BY-SA-2.5", TUXPAINT_PAGE)
    ),
    "helmeted_guineafowl": ("Paul venter", "GFDL", f"{WIKIMEDIA}Helmeted_guineafowl_kruger00.jpg"),
    "Apricot_whole": ("Benjamint444", "GFDL", f"{WIKIMEDIA}Apricot_whole444.jpg"),
    "Cherry_Stella": ("Benjamint444", "GFDL", f"{WIKIMEDIA}Cherry_Stella444.jpg"),
    "Strawberry2": ("Benjamint444", "GFDL", f"{WIKIMEDIA}Strawberry444.jpg"),
}
TUXPAINT = ("contributors of Tux Paint", "GPL-2.0-or-later", TUXPAINT_PAGE)

# GCompris: activity → class → names. A number is where the square lies, 0 left to 1 right, if not at .5; what stands on
# white already is kept whole.
SCENES: dict[str, dict[str, str]] = {
    "erase": {
        "mammal": "alpaca calf cheetah:.75 flying_fox:.75 gibbon giraffe:.8 goat gorilla:.6 horse kitten "
        "long_nosed_monkey macaque:.75 meerkats nubian_ibex:.35 pika red_panda:.4 rhinoceros squirrel:.45",
        "bird": "gosling heron:.35 kingfisher northern_harrier:.35 penguin:.4 spoonbills:.2 swans toucan:0",
        "sea animal": "crab dolphin",
    },
    "explore_farm_animals": {"mammal": "cat cow dog horse:.4 pig:.4 sheep", "bird": "chicken duck owl"},
    "explore_world_animals": {
        "mammal": "bison giraffe hedgehog jaguar kangaroo:.4 koala lemur moose panda polar_bear",
        "bird": "scarlet_macaw",
        "sea animal": "narwhal",
    },
    "categorization": {
        "sea animal": "fish1:.4 fish2 fish3 fish4:.6 fish5 fish6 fish7:.55 fish8 fish9:.4 fish10 fish11 fish12 fish13 "
        "fish14 fish15:.6 fish16 fish18 fish19 fish20 fish21 fish22 fish23 fish24 fish25 fish26 fish27 fish28",
        "tool": "hammer1:.8 hammer2:whole hammer3:.4 hammer5:whole hammer7:whole hammer8:whole hammer9:whole "
        "measuringTape1:whole measuringTape2:whole measuringTape5 measuringTape6 plier1:whole plier2:whole "
        "plier3:whole plier4 scissors1:whole scissors2 scissors3 scissors4:whole screwDriver1 screwDriver2 "
        "screwDriver3:whole sideCutter1 tweezer tweezer1:whole wrench:whole wrench1 cuttingTool:whole",
        "building": "IndiaGate:.6 arcDeTriomphe bayterek burj cathedral empireState jucheTower:.6 leMusee "
        "leaningTowerOfPisa monument1 monument2 monument3 operaHouse:.6 parthenon usCapitol zimniPalace",
    },
    "explore_monuments": {
        "building": "egypt/greatPyramidOfGiza france/arlesAmphitheater france/chateaudeChambord "
        "france/chateaudeChenonceau:.6 france/citedeCarcassonne france/eiffelTower france/palaisdesPapes "
        "france/reimsCathedral germany/berlinCathedral germany/brandenburgGate germany/neuschwansteinCastle "
        "germany/schwerinPalace germany/wormsCathedral india/charminar india/gatewayofIndia:.35 india/goldenTemple "
        "india/greatStupa india/hawaMahal india/mysorePalace india/qutubMinar india/rangGhar india/victoriaMemorial "
        "usa/georgeWashingtonBirthplace usa/lincolnMemorial wonders/chichenItza wonders/colosseum wonders/petra "
        "wonders/tajMahal",
    },
}

# Emoji of the same classes: subcategories, with what is left out: body parts, imaginary animals, weapons and parts, and
# what is a fruit here and a vegetable there.
DRAWINGS = {
    "mammal": ("animal-mammal", "unicorn_face mammoth pig_nose feet"),
    "bird": ("animal-bird", "feather wing phoenix dodo hatching_chick"),
    "sea animal": ("animal-marine", "coral"),
    "flower": ("plant-flower", "rosette"),
    "fruit": ("food-fruit", "tomato olive coconut"),
    "vegetable": ("food-vegetable", "avocado peanuts chestnut beans"),
    "tool": (
        "tool",
        "dagger_knife crossed_swords bomb boomerang bow_and_arrow shield nut_and_bolt gear scales probing_cane link "
        "broken_chain chains hook magnet",
    ),
    "building": ("place-building place-religious", "building_construction bricks rock wood statue_of_liberty wedding"),
}


class Photo(NamedTuple):
    """One photograph, with what the bundle says of it."""

    name: str
    label: str
    is_scene: bool
    image: Image.Image
    author: str
    licence: str
    source: str


def unpack_rcc(path: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the files in a Qt resource collection, format version 1 to 3."""
    data = path.read_bytes()
    magic, version, tree, start, names = struct.unpack(">4s4I", data[:20])
    if magic != b"qres":
        raise SystemExit(f"{path} is no Qt resource collection")
    node_size = 14 if version == 1 else 22

    def walk(node: int, parents: str) -> Iterator[tuple[str, bytes]]:
        at = tree + node * node_size
        name_at, flags, first, second = struct.unpack(">IHII", data[at : at + 14])
        name = parents
        if node:
            (length,) = struct.unpack(">H", data[names + name_at : names + name_at + 2])
            text = names + name_at + 6
            name = f"{parents}/{data[text : text + 2 * length].decode('utf-16-be')}".lstrip("/")
        if flags & 2:
            for child in range(second, second + first):
                yield from walk(child, name)
            return
        at = start + second
        (length,) = struct.unpack(">I", data[at : at + 4])
        content = data[at + 4 : at + 4 + length]
        yield name, zlib.decompress(content[4:]) if flags & 1 else content

    yield from walk(0, "")


def read_credits(text: str) -> dict[str, tuple[str, str, str]]:
    """File → (author, licence, source) of a README in GCompris: blocks that begin with a copyright line."""
    found: dict[str, tuple[str, str, str]] = {}
    for block in re.split(r"^(?=Copyright:)", text, flags=re.MULTILINE):
        fields = dict(re.findall(r"^(Copyright|License|Source):\s*(.+)$", block, flags=re.MULTILINE))
        files = block.partition("Files:")[2].split()
        found |= dict.fromkeys(
            files, (fields.get("Copyright", ""), _spdx(fields.get("License", "")), fields.get("Source", ""))
        )
    return found


def _spdx(licence: str) -> str:
    return {"public domain": "public domain"}.get(licence.lower(), licence.replace("CC-BY-SA 4", "CC-BY-SA-4"))


def stamps(folder: Path) -> Iterator[Photo]:
    """Cut-outs of Tux Paint, whose folders are labels."""
    root = folder / "usr/share/tuxpaint/stamps"
    for label, (places, left_out) in STAMPS.items():
        paths = [path for place in places.split() for path in (root / place).rglob("*.png")]
        if label == "sea animal":
            paths += [root / "animals/mammals/aquatic" / f"{name}.png" for name in SEA_MAMMALS]
        for path in sorted(paths):
            if "cartoon" in path.parts or path.stem in left_out.split():
                continue
            about = CREDITED.get(path.stem, TUXPAINT)
            yield Photo(f"tuxpaint/{path.stem}", label, False, centred(on_white(path)), *about)


def scenes(folder: Path) -> Iterator[Photo]:
    """Photographs of GCompris, whose READMEs name author, licence and source of each."""
    root = folder / "usr/share/gcompris-qt/rcc"
    for activity, classes in SCENES.items():
        files = dict(unpack_rcc(root / f"{activity}.rcc"))
        told: dict[str, tuple[str, str, str]] = {}
        for name, content in files.items():
            if name.endswith("/README"):
                parent = name.removesuffix("/README")
                told |= {f"{parent}/{file}": about for file, about in read_credits(content.decode()).items()}
        for label, words in classes.items():
            for word in words.split():
                stem, _, middle = word.partition(":")
                (path,) = [name for name in files if name.endswith(f"/{stem}.webp")]
                image = Image.open(BytesIO(files[path])).convert("RGB")
                on_page = centred(image) if middle == "whole" else cut_square(image, float(middle or 0.5))
                name = f"gcompris/{activity}/{stem.rpartition('/')[2]}"
                yield Photo(name, label, middle != "whole", on_page, *told[path])


def centred(image: Image.Image) -> Image.Image:
    """What is not white, as large as fits and at most so much enlarged, in the middle of a white square."""
    box = image.convert("L").point(lambda value: 255 * (value < 250)).getbbox()
    subject = image.crop(box)
    scale = min((SIDE - 2 * MARGIN) / max(subject.size), MOST_ENLARGED)
    width, height = (max(1, round(scale * length)) for length in subject.size)
    page = Image.new("RGB", (SIDE, SIDE), "white")
    smaller = subject.resize((width, height), Image.Resampling.LANCZOS)
    page.paste(smaller, ((SIDE - width) // 2, (SIDE - height) // 2))
    return page


def cut_square(image: Image.Image, middle: float) -> Image.Image:
    """The largest square, `middle` of the free way from left to right."""
    side = min(image.size)
    left, top = round(middle * (image.width - side)), (image.height - side) // 2
    return image.resize((SIDE, SIDE), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side))


def make_photos(tuxpaint: Path, gcompris: Path) -> None:
    """All photographs, class after class, two thirds of each class and kind to learn from."""
    photos = sorted(
        [*stamps(tuxpaint), *scenes(gcompris)],
        key=lambda photo: (CLASSES.index(photo.label), photo.is_scene, photo.name),
    )
    strata = [2 * CLASSES.index(photo.label) + photo.is_scene for photo in photos]
    present = sorted(set(strata))
    emoji = json.loads((BUNDLED / "emoji.json").read_text())
    kinds = dict(zip(emoji["names"], (emoji["subcategories"][k] for k in emoji["subcategory"]), strict=True))
    drawings = {
        label: [name for name, kind in kinds.items() if kind in places.split() and name not in left_out.split()]
        for label, (places, left_out) in DRAWINGS.items()
    }
    train, _ = split([present.index(stratum) for stratum in strata], fractions=(2 / 3, 1 / 3), seed=0)
    about = {
        "width": SIDE,
        "count": len(photos),
        "classes": CLASSES,
        "names": [photo.name for photo in photos],
        "labels": [CLASSES.index(photo.label) for photo in photos],
        "scenes": [int(photo.is_scene) for photo in photos],
        "train": train.tolist(),
        "authors": [photo.author for photo in photos],
        "licences": [photo.licence for photo in photos],
        "sources": [photo.source for photo in photos],
        "drawings": drawings,
    }
    (BUNDLED / "photos.json").write_text(json.dumps(about, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")
    sheet([photo.image for photo in photos]).save(BUNDLED / "photos.webp", quality=90, method=6)


if __name__ == "__main__":
    make_photos(Path(sys.argv[1]), Path(sys.argv[2]))
    for path in sorted(BUNDLED.glob("photos.*")):
        print(f'    "{path.name}": "{hashlib.sha256(path.read_bytes()).hexdigest()}",  # {path.stat().st_size:,} bytes')
