import json
from dataclasses import asdict

import pytest
from PIL import Image
from tiny import TINY, draw_bumps


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """A folder of 8 × 8 images, PNG and JPEG, grey and colour, in two folders."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "more").mkdir()
    for index, image in enumerate(draw_bumps(40, seed=3)):
        picture = Image.fromarray(image).convert("RGB" if index % 3 else "L")
        picture.save(folder / ("more" if index % 2 else ".") / f"{index}.{'jpg' if index % 5 else 'png'}")
    return folder


@pytest.fixture
def short(tmp_path):
    path = tmp_path / "short.json"
    path.write_text(json.dumps(asdict(TINY) | {"steps": 4, "density_steps": 4, "every": 2}))
    return path
