"""Photos for the orders: landscapes painted with Pillow, the same for the same seed, or the user's own."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path

from PIL import Image, ImageChops, ImageDraw, ImageFilter

WIDTH, HEIGHT = 1600, 1200
COUNT = 24
"""Orders share this many photos."""

Color = tuple[int, int, int]

PALETTES: tuple[tuple[Color, Color, Color, Color], ...] = (
    ((24, 32, 84), (250, 150, 90), (255, 226, 170), (46, 30, 66)),
    ((94, 170, 226), (226, 240, 250), (255, 252, 226), (40, 84, 78)),
    ((16, 22, 50), (70, 92, 150), (238, 238, 220), (10, 16, 32)),
    ((120, 60, 120), (255, 180, 150), (255, 240, 190), (58, 30, 70)),
    ((60, 120, 130), (240, 214, 160), (255, 244, 214), (84, 58, 44)),
)
"""Top of the sky, horizon, sun or moon, nearest hills."""


def painted_photos(folder: Path, seed: int, count: int = COUNT) -> Iterator[Path]:
    """Yield ``count`` photos; those that a former run has painted are used again."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        path = folder / f"landscape-{seed}-{number:02}.jpg"
        if not path.exists():
            partial = path.with_suffix(".partial")
            paint(random.Random(f"photo {seed} {number}")).save(partial, "JPEG", quality=90)
            partial.replace(path)
        yield path


def own_photos(folder: Path) -> list[Path]:
    """The files in a folder, by name; hidden ones and folders left out."""
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def paint(chance: random.Random) -> Image.Image:
    """A landscape: sky, sun, a few ranges of hills in the haze, perhaps a lake, and the grain of a camera."""
    top, horizon_color, light, near = chance.choice(PALETTES)
    horizon = round(HEIGHT * chance.uniform(0.45, 0.62))
    picture = _sky(top, horizon_color, horizon)
    sun = (round(WIDTH * chance.uniform(0.15, 0.85)), round(horizon * chance.uniform(0.25, 0.85)))
    picture = _shine(picture, sun, light, radius=chance.randint(28, 60))
    _hills(picture, chance, horizon, (horizon_color, near))
    if chance.random() < 0.5:
        _lake(picture, round(HEIGHT * chance.uniform(0.74, 0.84)), top)
    return _grain(picture, chance)


def _sky(top: Color, bottom: Color, horizon: int) -> Image.Image:
    ramp = Image.linear_gradient("L").resize((WIDTH, horizon))
    sky = Image.composite(Image.new("RGB", ramp.size, bottom), Image.new("RGB", ramp.size, top), ramp)
    picture = Image.new("RGB", (WIDTH, HEIGHT), bottom)
    picture.paste(sky)
    return picture


def _shine(picture: Image.Image, center: tuple[int, int], color: Color, radius: int) -> Image.Image:
    reach = radius * 22
    glow = (
        Image.radial_gradient("L").resize((reach, reach)).point(lambda value: round(230 * max(0, 1 - value / 180) ** 3))
    )
    mask = Image.new("L", picture.size)
    mask.paste(glow, (center[0] - reach // 2, center[1] - reach // 2))
    lit = Image.composite(Image.new("RGB", picture.size, color), picture, mask)
    x, y = center
    ImageDraw.Draw(lit).ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)
    return lit


def _hills(picture: Image.Image, chance: random.Random, horizon: int, colors: tuple[Color, Color]) -> None:
    far, near = colors
    ranges = chance.randint(4, 6)
    draw = ImageDraw.Draw(picture)
    for index in range(ranges):
        depth = (index + 1) / ranges
        base = horizon + (HEIGHT - horizon) * 0.75 * index / ranges
        ridge = _ridge(chance, height=200 - 90 * depth)
        points = [(x, base - ridge(x)) for x in range(0, WIDTH + 4, 4)]
        draw.polygon([(0, HEIGHT), *points, (WIDTH, HEIGHT)], fill=_mix(far, near, 0.15 + 0.85 * depth))


def _ridge(chance: random.Random, height: float) -> Callable[[float], float]:
    """A sum of waves, each about half as high and twice as short as the one before."""
    waves = [(height / 2**n, chance.uniform(0.8, 1.4) * 2**n, chance.uniform(0, math.tau)) for n in range(7)]
    return lambda x: sum(size * math.sin(pace * math.tau * x / WIDTH + shift) for size, pace, shift in waves) / 2


def _lake(picture: Image.Image, shore: int, tint: Color) -> None:
    depth = HEIGHT - shore
    mirrored = picture.crop((0, shore - depth, WIDTH, shore)).transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    rippled = mirrored.resize((WIDTH, depth // 6)).resize((WIDTH, depth)).filter(ImageFilter.GaussianBlur(3))
    picture.paste(Image.blend(rippled, Image.new("RGB", rippled.size, tint), 0.3), (0, shore))


def _grain(picture: Image.Image, chance: random.Random) -> Image.Image:
    """Noise, from a small tile: ``effect_noise`` has no seed, and the same seed must give the same photo."""
    side = 256
    tile = Image.frombytes("L", (side, side), chance.randbytes(side * side)).point(lambda value: 124 + value // 32)
    noise = Image.new("L", picture.size)
    for x in range(0, WIDTH, side):
        for y in range(0, HEIGHT, side):
            noise.paste(tile, (x, y))
    return ImageChops.add(picture, Image.merge("RGB", (noise, noise, noise)), offset=-128)


def _mix(one: Color, other: Color, share: float) -> Color:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue
