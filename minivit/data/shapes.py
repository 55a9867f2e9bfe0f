"""Data sets that need no download: ten shapes, drawn from signed distance functions, in ten textures.

``shapes10`` asks for the shape; ``shapes100`` for shape and texture (class ``10 * shape + texture``). Images
are 32x32 RGB. Position, size, rotation, colours, background, an occluding curtain and noise are random. Single
pixels say little about the shape, so a linear model fails, while a network that composes edges into outlines
succeeds.

Sizes: 20,000 training and 2,000 test images, equally many of each class. Images are drawn in chunks of 500,
each from its own generator, keyed by seed, split and chunk: image ``i`` is the same however many are drawn.
"""

import numpy as np

from minivit.data.dataset import Dataset, Split

# --- Difficulty: everything that decides how hard the pictures are ------------------------------------------
RADIUS = (8.0, 11.0)  # pixels, uniform
SHIFT = 5.0  # pixels; the centre is up to this far from the middle, in each direction
ROTATION = np.pi  # radians; uniform in [-ROTATION, ROTATION]
BACKGROUND_CONTRAST = 0.1  # standard deviation between the two background colours, in [0, 1] units
BACKGROUND_WAVES = (0.2, 2.5)  # periods of the background across the image: from a gradient to stripes
CURTAIN_PROBABILITY = 0.2  # share of images in which a plain half-plane hides an edge of the shape
CURTAIN_DISTANCE = (0.6, 1.0)  # its distance from the shape's centre, in radii
NOISE = 0.03  # standard deviation of Gaussian noise on each value, in [0, 1] units
# Background colours lie in [0, COLOUR_SPAN] and fills in [1 - COLOUR_SPAN, 1]: at 1 neither is the lighter one on
# average, below 1 the shape tends to be lighter, and at 0.5 it always is.
COLOUR_SPAN = 0.7
COLOUR_CANDIDATES = 4  # a fill colour is the one of so many that stands out most
SHAPES10_TEXTURES = ("plain", "shaded")  # fills that shapes10 draws from, whatever the class
# ------------------------------------------------------------------------------------------------------------

SIZE = 32
TRAIN_IMAGES, TEST_IMAGES = 20_000, 2_000
CHUNK = 500
TRAIN, TEST = 0, 1  # second word of a chunk's generator key

# Of the 20,000 training images of seed 0.
STATISTICS = {
    "shapes10": ((0.420, 0.417, 0.419), (0.246, 0.248, 0.247)),
    "shapes100": ((0.418, 0.418, 0.417), (0.245, 0.246, 0.247)),
}


# Shapes: (x, y), in radii from the centre with y downwards -> signed distance from the outline, negative
# inside. Distances need only be right near the outline.


def _box(x, y, half_width, half_height):
    return np.maximum(np.abs(x) - half_width, np.abs(y) - half_height)


def _disc(x, y):
    return np.hypot(x, y) - 0.9


def _ring(x, y):
    return np.abs(np.hypot(x, y) - 0.72) - 0.22


def _square(x, y):
    return _box(x, y, 0.75, 0.75)


def _triangle(x, y):
    upper_sides = np.sqrt(np.float32(0.75)) * np.abs(x) - y / 2
    return np.maximum(upper_sides, y) - 0.54


def _star(x, y):
    """Five points: fold the plane into one tenth of it, where the outline is a line from a tip to a notch."""
    sector = 2 * np.pi / 5
    angle = np.abs((np.arctan2(x, -y) + sector / 2) % sector - sector / 2)
    tip_x, notch_x, notch_y = 1.1, 0.48 * np.cos(sector / 2), 0.48 * np.sin(sector / 2)
    length = np.hypot(tip_x - notch_x, notch_y)
    normal_x, normal_y = float(notch_y / length), float((tip_x - notch_x) / length)
    return np.hypot(x, y) * (normal_x * np.cos(angle) + normal_y * np.sin(angle)) - normal_x * tip_x


def _cross(x, y):
    return np.minimum(_box(x, y, 1.0, 0.3), _box(x, y, 0.3, 1.0))


def _heart(x, y):
    """A square standing on its corner, with a disc on each of its upper sides."""
    half, offset = 0.6, 0.6 / 2**0.5
    square = (np.abs(x) + np.abs(y)) / 2**0.5 - half
    return np.minimum(square, np.hypot(np.abs(x) - offset, y + offset) - half)


def _crescent(x, y):
    return np.maximum(np.hypot(x, y) - 1.0, 0.8 - np.hypot(x - 0.5, y))


def _arrow(x, y):
    head = np.maximum(0.8 * np.abs(x) - 0.6 * (y + 1.0), y + 0.05)
    return np.minimum(head, _box(x, y - 0.45, 0.24, 0.55))


def _bar(x, y):
    return _box(x, y, 1.05, 0.3)


SHAPES = {
    "disc": _disc,
    "ring": _ring,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
    "heart": _heart,
    "crescent": _crescent,
    "arrow": _arrow,
    "bar": _bar,
}


# Textures: (x, y) as above, the shape's signed distance, the pixels in a radius, and a generator -> the
# weight of the second colour, from 0 to 1.


def _edge(field, scale):
    """Weight 0 to 1 across the boundary where ``field`` (in radii) changes sign, one pixel wide."""
    return np.clip(0.5 + field * scale, 0, 1)


def _bands(position, period):
    """Distance to the boundary of equal bands: positive in every second one."""
    return np.abs(position % period - period / 2) - period / 4


def _plain(x, y, distance, scale, rng):
    return np.zeros_like(x)


def _shaded(x, y, distance, scale, rng):
    return np.clip(0.5 + 0.6 * y, 0, 1)


def _halved(x, y, distance, scale, rng):
    return _edge(x, scale)


def _striped(x, y, distance, scale, rng):
    return _edge(_bands(y, 0.5), scale)


def _wavy(x, y, distance, scale, rng):
    return _edge(_bands(y + 0.22 * np.sin(6 * x), 0.7), scale)


def _checked(x, y, distance, scale, rng):
    across, down = _edge(_bands(x, 0.8), scale), _edge(_bands(y, 0.8), scale)
    return across + down - 2 * across * down


def _dotted(x, y, distance, scale, rng):
    period = 0.55
    return _edge(0.16 - np.hypot(x % period - period / 2, y % period - period / 2), scale)


def _contoured(x, y, distance, scale, rng):
    return _edge(-_bands(distance, 0.36), scale)


def _spoked(x, y, distance, scale, rng):
    return _edge(np.hypot(x, y) * np.sin(5 * np.arctan2(y, x)) / 5, scale)


def _speckled(x, y, distance, scale, rng):
    blocks = rng.random((len(x), SIZE // 2, SIZE // 2), np.float32) < 0.4
    return blocks.repeat(2, axis=1).repeat(2, axis=2).astype(np.float32)


TEXTURES = {
    "plain": _plain,
    "shaded": _shaded,
    "halved": _halved,
    "striped": _striped,
    "wavy": _wavy,
    "checked": _checked,
    "dotted": _dotted,
    "contoured": _contoured,
    "spoked": _spoked,
    "speckled": _speckled,
}


def draw(shapes, textures, rng):
    """Draw one image for each pair of indices into SHAPES and TEXTURES; returns uint8 ``(N, 3, 32, 32)``."""
    count = len(shapes)

    def uniform(low, high):
        return rng.uniform(low, high, (count, 1, 1)).astype(np.float32)

    row, column = np.mgrid[:SIZE, :SIZE].astype(np.float32) - np.float32(SIZE / 2 - 0.5)

    # The shape's own coordinates: shifted, turned, and measured in radii.
    radius, angle = uniform(*RADIUS), uniform(-ROTATION, ROTATION)
    right, down = column - uniform(-SHIFT, SHIFT), row - uniform(-SHIFT, SHIFT)
    x = (np.cos(angle) * right + np.sin(angle) * down) / radius
    y = (np.cos(angle) * down - np.sin(angle) * right) / radius

    distance, second = np.empty_like(x), np.empty_like(x)
    for index, shape in enumerate(SHAPES.values()):
        rows = shapes == index
        distance[rows] = shape(x[rows], y[rows])
    for index, texture in enumerate(TEXTURES.values()):
        rows = textures == index
        second[rows] = texture(x[rows], y[rows], distance[rows], radius[rows], rng)
    inside = _edge(-distance, radius)

    # The background runs between two colours in waves of random direction and length.
    direction, waves = uniform(-np.pi, np.pi), uniform(*BACKGROUND_WAVES)
    across = np.cos(direction) * column + np.sin(direction) * row
    phase = 2 * np.pi / SIZE * waves * across + uniform(-np.pi, np.pi)

    # The curtain: everything beyond a line, on the side to which a direction points.
    direction = uniform(-np.pi, np.pi)
    reach = np.cos(direction) * right + np.sin(direction) * down
    curtain = np.clip(reach - uniform(*CURTAIN_DISTANCE) * radius + 0.5, 0, 1)
    curtain *= uniform(0, 1) < CURTAIN_PROBABILITY

    background = rng.random((count, 3), np.float32) * np.float32(COLOUR_SPAN)
    other_background = background + rng.normal(0, BACKGROUND_CONTRAST, (count, 3)).astype(np.float32)
    first_fill = _contrasting(rng, background, other_background)
    second_fill = _contrasting(rng, background, other_background, first_fill)
    curtain_colour = rng.random((count, 3), np.float32)

    def paint(colour):
        return colour[:, :, None, None]

    images = paint(background) + paint(other_background - background) * (0.5 + 0.5 * np.sin(phase))[:, None]
    fill = paint(first_fill) + paint(second_fill - first_fill) * second[:, None]
    images += (fill - images) * inside[:, None]
    images += (paint(curtain_colour) - images) * curtain[:, None]
    images += np.float32(NOISE) * rng.standard_normal(images.shape, np.float32)
    return (np.clip(images, 0, 1) * 255 + 0.5).astype(np.uint8)


def _contrasting(rng, *colours):
    """For each image, of a few random fills the one farthest from the nearest of ``colours`` ``(N, 3)``."""
    count = len(colours[0])
    candidates = 1 - np.float32(COLOUR_SPAN) * rng.random((COLOUR_CANDIDATES, count, 3), np.float32)
    nearest = np.min([np.linalg.norm(candidates - colour, axis=2) for colour in colours], axis=0)
    return candidates[np.argmax(nearest, axis=0), np.arange(count)]


def _draw_split(name, seed, split, count):
    """Draw the first ``count`` images of a split, chunk by chunk."""
    classes = 10 if name == "shapes10" else 100
    images = np.empty((count, 3, SIZE, SIZE), np.uint8)
    labels = np.empty(count, np.int64)
    for chunk in range(-(-count // CHUNK)):
        rng = np.random.default_rng([seed, split, chunk])
        chunk_labels = rng.permutation(np.arange(CHUNK) % classes)
        if name == "shapes10":
            shapes = chunk_labels
            choices = [list(TEXTURES).index(texture) for texture in SHAPES10_TEXTURES]
            textures = rng.choice(choices, CHUNK)
        else:
            shapes, textures = np.divmod(chunk_labels, 10)
        rows = slice(chunk * CHUNK, min((chunk + 1) * CHUNK, count))
        images[rows] = draw(shapes, textures, rng)[: rows.stop - rows.start]
        labels[rows] = chunk_labels[: rows.stop - rows.start]
    return Split(images, labels)


def load_shapes(name, *, seed=0, limit_train=None, limit_test=None):
    """Draw ``shapes10`` or ``shapes100``; with limits, only the first images of each split."""
    train = _draw_split(name, seed, TRAIN, min(limit_train or TRAIN_IMAGES, TRAIN_IMAGES))
    test = _draw_split(name, seed, TEST, min(limit_test or TEST_IMAGES, TEST_IMAGES))
    if name == "shapes10":
        class_names = tuple(SHAPES)
    else:
        class_names = tuple(f"{texture} {shape}" for shape in SHAPES for texture in TEXTURES)
    mean, std = STATISTICS[name]
    return Dataset(name, train, test, class_names, mean, std, img_size=SIZE)
