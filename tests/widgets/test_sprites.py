"""Many images on one sheet."""

import io

from PIL import Image

from frozenkit.widgets._sprites import make_sprite


def test_a_sheet_holds_every_image_in_its_place():
    tiles = [Image.new("RGB", (10, 10), (20 * i, 0, 0)) for i in range(5)]
    data, grid = make_sprite(tiles, side=8)
    page = Image.open(io.BytesIO(data))
    assert grid == {"side": 8, "columns": 3}
    for i in range(5):
        assert page.getpixel(((i % 3) * 8 + 4, (i // 3) * 8 + 4)) == (20 * i, 0, 0)
