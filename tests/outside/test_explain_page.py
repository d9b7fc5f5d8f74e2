"""The page of an explanation in a browser: light and dark, and no request."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support.small_models import SGR, random_regions

import sgraf_deploy
from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.explanation.page import Shown, page
from sgraf_deploy.explanation.picture import read_picture
from sgraf_deploy.explanation.regions import grid

pytestmark = pytest.mark.outside

DARK, LIGHT = 0, 1
"""Chromium's numbers of the schemes."""

Pixel = tuple[int, int, int]
Ints = NDArray[np.int64]

RED: Pixel = (255, 0, 0)
PICTURE_SIZE = (70, 50)


@pytest.fixture(scope="module")
def written(exported: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with two images, a photograph all in red, and a grid."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "red.png").write_bytes(red_png(*PICTURE_SIZE))
    picture = read_picture(folder / "red.png")
    layout = grid(f"1x{SGR.regions}", SGR.regions, PICTURE_SIZE)
    with sgraf_deploy.load(exported, "ort", "fp32", threads=1) as scorer:
        shown = [
            Shown(
                f"{row}.jpg",
                sgraf_deploy.explain(scorer, regions, "word3 nowhere"),
                layout,
                picture,
            )
            for row, regions in enumerate(random_regions(SGR, 2))
        ]
    (folder / "it.html").write_text(page(shown, "small"), encoding="utf-8")
    return folder / "it.html"


def red_png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    rows = (b"\0" + bytes(RED) * width) * height
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def screenshot(path: Path, scheme: int) -> tuple[bytes, list[str]]:
    """The page's picture, and the addresses that the browser asked for."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    assert browser is not None, "install Chromium: apt-get install chromium"
    shot, log = path.with_suffix(f".{scheme}.png"), path.with_suffix(f".{scheme}.json")
    command = [
        *(browser, "--headless", "--no-sandbox", "--hide-scrollbars", "--window-size=1400,2400"),
        *("--disable-background-networking", "--disable-component-update", "--no-first-run"),
        *(f"--user-data-dir={path.parent / f'profile-{scheme}'}", f"--log-net-log={log}"),
        *(f"--blink-settings=preferredColorScheme={scheme}", f"--screenshot={shot}"),
    ]
    subprocess.run([*command, path.as_uri()], check=True, capture_output=True, timeout=120)
    events = json.loads(log.read_text(encoding="utf-8"))["events"]
    asked = (event["params"] for event in events if "url" in event.get("params", {}))
    return shot.read_bytes(), [
        each["url"]
        for each in asked
        if each["url"].startswith(("http:", "https:", "ws:", "wss:"))
        and each.get("initiator") not in (None, "not an origin")  # The browser's own affairs.
    ]


def pixels(png: bytes) -> Ints:
    """(height, width, 3) of an 8-bit PNG."""
    width, height, _, kind = struct.unpack(">IIBB", png[16:26])
    channels, place, data = {2: 3, 6: 4}[kind], 8, b""
    while place < len(png):
        (length,) = struct.unpack(">I", png[place : place + 4])
        if png[place + 4 : place + 8] == b"IDAT":
            data += png[place + 8 : place + 8 + length]
        place += 12 + length
    rows = np.frombuffer(zlib.decompress(data), np.uint8).reshape(height, 1 + width * channels)
    image = np.zeros((height, width, channels), np.int64)
    above = np.zeros((width, channels), np.int64)
    for row in range(height):
        above = image[row] = unfiltered(int(rows[row, 0]), rows[row, 1:].reshape(width, -1), above)
    return image[:, :, :3]


def unfiltered(kind: int, line: NDArray[np.uint8], above: Ints) -> Ints:
    """One row of a PNG without its filter."""
    wide = line.astype(np.int64)
    if kind == 0:
        return wide
    if kind == 1:
        total: Ints = np.cumsum(wide, axis=0) % 256
        return total
    if kind == 2:
        return (wide + above) % 256
    found = np.zeros_like(wide)
    left, corner = np.zeros(wide.shape[1], np.int64), np.zeros(wide.shape[1], np.int64)
    for column in range(len(wide)):
        up = above[column]
        guess = (left + up) // 2 if kind == 3 else paeth(left, up, corner)
        left = found[column] = (wide[column] + guess) % 256
        corner = up
    return found


def paeth(left: Ints, up: Ints, corner: Ints) -> Ints:
    first = left + up - corner
    gaps = [np.abs(first - each) for each in (left, up, corner)]
    rest = np.where(gaps[1] <= gaps[2], up, corner)
    found: Ints = np.where((gaps[0] <= gaps[1]) & (gaps[0] <= gaps[2]), left, rest)
    return found


def test_a_browser_shows_it_light_and_dark_and_asks_for_nothing(written: Path) -> None:
    light, asked = screenshot(written, LIGHT)
    assert asked == []
    dark, asked = screenshot(written, DARK)
    assert asked == []

    bright, dim = pixels(light), pixels(dark)
    assert bright[0, 0].tolist() == [255, 255, 255]
    assert dim[0, 0].max() < 40
    assert bright.mean() > 200
    assert dim.mean() < 80
    for shot in (bright, dim):  # The photograph is there, behind what is drawn on it.
        red = (shot[:, :, 0] - shot[:, :, 1] > 90) & (shot[:, :, 2] < 140)
        assert red.sum() > 10_000


def test_a_page_that_asks_for_something_is_seen(written: Path) -> None:
    asking = written.with_name("asking.html")
    asking.write_text('<!doctype html><img src="http://127.0.0.1:9/x.png">', encoding="utf-8")
    _, asked = screenshot(asking, LIGHT)
    assert set(asked) == {"http://127.0.0.1:9/x.png"}

    text = written.read_text(encoding="utf-8")
    asking.write_text(text.replace("</body>", '<img src="http://127.0.0.1:9/x.png"></body>'))
    assert screenshot(asking, LIGHT)[1] == []  # The page's own policy refuses it.
