"""Random axial sections of the human neck and trunk, painted from the outside in.

No image of a person is used: sizes are drawn from wide ranges around published anatomy (cord 4.5-10 by 6-15 mm,
canal 11-16 by 18-26 mm at the neck), so that what is learnt is the arrangement of the tissues and no measured shape.
"""

from dataclasses import dataclass, field

import numpy as np
from contrasts import INDEX
from numpy.typing import NDArray
from shapes import Field, box, capsule, ellipse, lobed, smooth_noise

KINDS = ("cervical", "thoracic", "conus", "cauda", "skull_base", "brain", "cerebrum")
KIND_WEIGHTS = (0.46, 0.16, 0.07, 0.10, 0.12, 0.05, 0.04)
CISTERN_AREA = 500.0
"""Section of the dural sac [mm2] above which its content is no longer called cord: the sac holds 310 mm2 at C1, and the
foramen magnum, about 35 by 30 mm, holds 800."""


@dataclass
class Canvas:
    """What is painted on: one image for each contrast, and the share of each pixel that is cord."""

    x: Field
    y: Field
    edge: float
    brightness: NDArray[np.float32]  # (contrasts, tissues)
    textures: list[Field]
    images: Field = field(init=False)
    cord: Field = field(init=False)
    medulla: Field = field(init=False)

    def __post_init__(self) -> None:
        self.images = np.zeros((len(self.brightness), *self.x.shape), dtype=np.float32)
        self.images += self.brightness[:, INDEX["air"], None, None]
        self.cord = np.zeros(self.x.shape, dtype=np.float32)
        self.medulla = np.zeros(self.x.shape, dtype=np.float32)

    def paint(
        self, distance: Field, tissue: str, *, texture: float = 0.0, grain: int = 1, is_cord: bool = False
    ) -> None:
        """Cover the inside of a figure with a tissue, partial volume at its edge."""
        cover = np.clip(0.5 - distance / self.edge, 0, 1).astype(np.float32)
        self.cover(cover, tissue, texture=texture, grain=grain, is_cord=is_cord)

    def cover(self, cover: Field, tissue: str, *, texture: float = 0.0, grain: int = 1, is_cord: bool = False) -> None:
        """Cover with a tissue where ``cover`` is 1."""
        value = self.brightness[:, INDEX[tissue], None, None]
        if texture:
            value = value * np.maximum(1 + texture * self.textures[grain], 0.05)
        self.images += cover * (value - self.images)
        if is_cord:
            self.cord = np.maximum(self.cord, cover)


def draw_canvas(
    rng: np.random.Generator, shape: tuple[int, int], spacing: float, centre: tuple[float, float], brightness: Field
) -> Canvas:
    """Pixel places [mm] about the middle of the cord, bent, turned and stretched at random."""
    u = (np.arange(shape[0], dtype=np.float32) - (shape[0] - 1) / 2) * spacing + centre[0]
    v = (np.arange(shape[1], dtype=np.float32) - (shape[1] - 1) / 2) * spacing + centre[1]
    x, y = np.meshgrid(u, v, indexing="ij")
    turn = np.deg2rad(rng.normal(0, 7))
    x, y = np.cos(turn) * x - np.sin(turn) * y, np.sin(turn) * x + np.cos(turn) * y
    y = y / rng.uniform(0.95, 1.0 + 0.3 * rng.random() ** 2)  # the section of a leaning cord is longer
    amount = rng.uniform(0, 1.2)
    x = x + amount * smooth_noise(rng, shape, spacing, 14.0)
    y = y + amount * smooth_noise(rng, shape, spacing, 14.0)
    textures = [smooth_noise(rng, shape, spacing, length) for length in (0.5, 1.5, 4.0, 10.0)]
    return Canvas(x.astype(np.float32), y.astype(np.float32), spacing, brightness, textures)


def waves(rng: np.random.Generator, amount: float) -> NDArray[np.float64]:
    """Random modulation of a radius."""
    orders = np.arange(1, 6)
    return np.stack([orders, rng.normal(0, amount / orders), rng.uniform(0, 2 * np.pi, 5)], axis=1)


@dataclass(frozen=True)
class Sizes:
    """Half axes [mm] of the cord and of the dural sac, and where the sac lies."""

    cord: tuple[float, float]
    sac: tuple[float, float]
    offset: tuple[float, float]


def draw_sizes(rng: np.random.Generator, kind: str) -> Sizes:
    """Draw cord and sac; the cord at the origin, the sac around it, touching walls included."""
    ranges = {
        "cervical": ((4.4, 7.6), (2.6, 5.0), (8.0, 13.5), (4.8, 8.5)),
        "thoracic": ((3.2, 5.4), (2.5, 4.2), (6.0, 10.0), (5.0, 9.0)),
        "conus": ((1.2, 5.0), (1.2, 4.4), (6.5, 11.0), (5.5, 9.5)),
        "cauda": ((0.3, 0.9), (0.3, 0.9), (6.0, 11.0), (5.0, 9.5)),
        "skull_base": ((4.8, 6.6), (3.8, 5.4), (9.0, 18.0), (8.0, 18.0)),
        "cerebrum": ((6.2, 11.0), (6.0, 11.0), (12.0, 20.0), (11.0, 20.0)),
        "brain": ((6.2, 11.0), (6.0, 11.0), (12.0, 20.0), (11.0, 20.0)),
    }[kind]
    a, b = rng.uniform(*ranges[0]), rng.uniform(*ranges[1])
    b = min(b, a * 1.05)
    if kind == "cervical" and rng.random() < 0.12:
        b *= rng.uniform(0.5, 0.85)  # flattened by a compression
    sac_a, sac_b = max(rng.uniform(*ranges[2]), a + 0.3), max(rng.uniform(*ranges[3]), b + 0.2)
    while kind == "skull_base" and abs(np.pi * sac_a * sac_b / CISTERN_AREA - 1) < 0.12:  # neither cord nor medulla
        sac_a, sac_b = rng.uniform(*ranges[2]), rng.uniform(*ranges[3])
    if rng.random() < 0.15 and kind not in {"cauda", "skull_base"}:  # little or no fluid left
        sac_a, sac_b = a + rng.uniform(0.3, 3), b + rng.uniform(0.1, 1.0)
    room = (sac_a - a, sac_b - b)
    offset = (float(np.clip(rng.normal(0, 0.8), -0.8, 0.8) * room[0] * 0.6), rng.uniform(-1, 1) * room[1])
    return Sizes((a, b), (sac_a, sac_b), offset)


def paint_section(rng: np.random.Generator, canvas: Canvas, kind: str) -> None:
    """Paint one whole section."""
    sizes = draw_sizes(rng, kind)
    if kind == "cerebrum":
        paint_cerebrum(rng, canvas)
        return
    if kind == "brain":
        paint_head(rng, canvas, sizes)
    else:
        paint_body(rng, canvas, kind)
        paint_vertebra(rng, canvas, sizes, kind)
    paint_sac(rng, canvas, sizes)
    if kind == "cauda":
        paint_roots(rng, canvas, sizes, int(rng.integers(8, 60)))
        return
    if kind == "conus" and rng.random() < 0.8:
        paint_roots(rng, canvas, sizes, int(rng.integers(4, 30)))
    paint_rootlets(rng, canvas, sizes)
    cistern = np.pi * sizes.sac[0] * sizes.sac[1] > CISTERN_AREA
    if cistern and rng.random() < 0.4:
        paint_tonsils(rng, canvas, sizes)
    if cistern and rng.random() < 0.8:  # the vertebral arteries enter the dura below the foramen magnum
        for side in (-1, 1):
            place = (side * rng.uniform(0.5, 0.9) * sizes.sac[0], rng.uniform(0, 0.7) * sizes.sac[1])
            canvas.paint(ellipse(canvas.x, canvas.y, place, (rng.uniform(1.2, 2.4),) * 2), "artery")
    paint_cord(rng, canvas, sizes, is_cord=kind != "brain")
    if kind == "skull_base" and cistern:
        canvas.cord, canvas.medulla = canvas.medulla, canvas.cord


def paint_head(rng: np.random.Generator, canvas: Canvas, sizes: Sizes) -> None:
    """Skull, cerebellum and the cistern around the brain stem."""
    x, y = canvas.x, canvas.y
    canvas.paint(
        ellipse(x, y, (0, rng.uniform(10, 40)), (rng.uniform(65, 85), rng.uniform(80, 105))), "fat", texture=0.2
    )
    canvas.paint(
        ellipse(x, y, (0, rng.uniform(10, 40)), (rng.uniform(58, 78), rng.uniform(70, 95))), "muscle", texture=0.2
    )
    canvas.cover((np.abs(canvas.textures[2]) < rng.uniform(0.05, 0.3)).astype(np.float32) * 0.7, "fat")
    canvas.paint(box(x, y, (0, sizes.sac[1] + 12), (rng.uniform(10, 25), 9), 5), "marrow", texture=0.3)
    back = rng.uniform(25, 45)
    skull = ellipse(x, y, (0, -back + 12), (rng.uniform(35, 62), back))
    canvas.paint(skull - 4, "cortex")
    canvas.paint(skull, "fluid")
    for side in (-1, 1):
        lobe = ellipse(x, y, (side * rng.uniform(16, 24), -back + 8), (rng.uniform(14, 20), back - rng.uniform(6, 12)))
        folia = np.sin(np.hypot(x, y + back) * rng.uniform(1.2, 2.5))
        canvas.paint(lobe, "brain", texture=0.1)
        canvas.cover((np.clip(0.5 - lobe, 0, 1) * (folia > 0.5) * 0.5).astype(np.float32), "fluid")


def paint_cerebrum(rng: np.random.Generator, canvas: Canvas) -> None:
    """Head above the posterior fossa: scalp, skull, folded brain, ventricles."""
    x, y = canvas.x, canvas.y - rng.uniform(-30, 50)
    half = (rng.uniform(60, 78), rng.uniform(75, 98))
    skull = lobed(x, y, half, waves(rng, 0.03), rng.uniform(1.9, 2.4))
    canvas.paint(skull - rng.uniform(4, 10), "fat", texture=0.2)
    canvas.paint(skull - rng.uniform(1, 3), "cortex")
    canvas.paint(skull, "fluid", texture=0.1)
    folds = canvas.textures[2] + (skull + rng.uniform(4, 10)) / 6
    canvas.cover((np.clip(0.5 - folds, 0, 1) * (skull < -2)).astype(np.float32), "gray", texture=0.1)
    canvas.cover((np.clip(-0.5 - folds, 0, 1) * (skull < -6)).astype(np.float32), "white", texture=0.1, grain=3)
    for side in (-1, 1):
        tip = (side * rng.uniform(4, 20), rng.uniform(-45, 45))
        canvas.paint(capsule(x, y, (side * rng.uniform(1, 6), rng.uniform(-15, 20)), tip, rng.uniform(1.5, 7)), "fluid")
        for _ in range(int(rng.integers(0, 3))):
            nucleus = (side * rng.uniform(5, 28), rng.uniform(-15, 30))
            canvas.paint(ellipse(x, y, nucleus, (rng.uniform(3, 9), rng.uniform(4, 14))), "gray")
    if rng.random() < 0.4:  # midbrain in its cistern
        canvas.paint(ellipse(x, y, (0, -8), (rng.uniform(16, 26), rng.uniform(14, 22))), "fluid")
        canvas.paint(ellipse(x, y, (0, -8), (rng.uniform(9, 16), rng.uniform(8, 13))), "brain", texture=0.1)


def paint_tonsils(rng: np.random.Generator, canvas: Canvas, sizes: Sizes) -> None:
    """Tonsils of the cerebellum behind the medulla."""
    for side in (-1, 1):
        place = (sizes.offset[0] + side * rng.uniform(3, 8), sizes.offset[1] - sizes.sac[1] * rng.uniform(0.4, 0.9))
        tonsil = ellipse(canvas.x, canvas.y, place, (rng.uniform(2.5, 7), rng.uniform(2.5, 8)))
        canvas.paint(np.maximum(tonsil, -canvas.y - 40), "brain", texture=0.1)


def paint_body(rng: np.random.Generator, canvas: Canvas, kind: str) -> None:
    """Skin, fat, muscles with fat between them, airway, great vessels."""
    x, y = canvas.x, canvas.y
    wide = rng.uniform(48, 80) if kind not in {"thoracic", "cauda"} else rng.uniform(90, 190)
    deep = wide * rng.uniform(0.75, 1.1)
    middle = (rng.normal(0, 3), rng.uniform(-5, 25))
    outline = lobed(x - middle[0], y - middle[1], (wide, deep), waves(rng, 0.05), rng.uniform(1.9, 2.8))
    canvas.paint(outline, "fat", texture=rng.uniform(0, 0.3), grain=2)
    canvas.paint(outline + rng.uniform(1, 16), "muscle", texture=rng.uniform(0, 0.35))
    for _ in range(int(rng.integers(4, 14))):
        place = (rng.uniform(-50, 50), rng.uniform(-60, 30))
        muscle = np.maximum(ellipse(x, y, place, (rng.uniform(5, 18), rng.uniform(4, 12))), outline + 2)
        canvas.paint(muscle - rng.uniform(0.3, 1.5), "fat")
        canvas.paint(muscle, "muscle", texture=rng.uniform(0, 0.4), grain=int(rng.integers(0, 3)))
    streaks = np.clip(1 - np.abs(canvas.textures[int(rng.integers(1, 4))]) / rng.uniform(0.03, 0.25), 0, 1)
    canvas.cover((streaks * rng.uniform(0, 0.8) * (outline < -6)).astype(np.float32), "fat")
    front = rng.uniform(30, 55)
    canvas.paint(
        ellipse(x, y, (rng.normal(0, 4), front), (rng.uniform(8, 22), rng.uniform(6, 16))), "gland", texture=0.3
    )
    canvas.paint(ellipse(x, y, (rng.normal(0, 3), front), (rng.uniform(3, 13), rng.uniform(3, 11))), "air")
    for side in (-1, 1):
        for tissue in ("artery", "vein"):
            place = (side * rng.uniform(18, 42), rng.uniform(5, 45))
            canvas.paint(ellipse(x, y, place, (rng.uniform(2, 7), rng.uniform(2, 5))), tissue, texture=0.15)


def paint_vertebra(rng: np.random.Generator, canvas: Canvas, sizes: Sizes, kind: str) -> None:
    """Body or disc, arch, joints, spinous process, vertebral vessels, epidural space."""
    x, y = canvas.x, canvas.y
    (sac_a, sac_b), (ox, oy) = sizes.sac, sizes.offset
    front = oy + sac_b + rng.uniform(0.8, 4)
    grow = 1.0 if kind in {"cervical", "skull_base"} else rng.uniform(1.1, 2.0)
    half = (rng.uniform(8, 14) * grow, rng.uniform(6, 9.5) * grow)
    tissue = str(rng.choice(["marrow", "disc"], p=[0.65, 0.35]))
    if rng.random() < 0.93:
        body = box(x, y, (ox, front + half[1]), half, min(half) * rng.uniform(0.4, 0.95))
        canvas.paint(body - rng.uniform(0.3, 1.5), "cortex")
        canvas.paint(body, tissue, texture=rng.uniform(0, 0.4), grain=int(rng.integers(0, 3)))
    wall = rng.uniform(1.2, 3.0)
    arch = lobed(x - ox, y - oy, (sac_a + wall, sac_b + wall), waves(rng, 0.04), rng.uniform(1.7, 2.6))
    if rng.random() < 0.7:
        paint_arch(rng, canvas, sizes, arch)
    else:
        canvas.paint(np.maximum(arch - rng.uniform(1, 4), y - front), "ligament", texture=0.2)
    if kind != "cauda":
        for side in (-1, 1):
            place = (side * (sac_a + rng.uniform(2, 8)), oy + rng.uniform(0, 10))
            canvas.paint(
                ellipse(x, y, place, (rng.uniform(1.2, 3), rng.uniform(1.2, 3))), str(rng.choice(["artery", "vein"]))
            )
    for side in (-1, 1):
        if rng.random() < 0.5:  # root and its ganglion in the foramen
            start = (ox + side * sac_a * 0.9, oy + rng.uniform(-1, 3))
            stop = (start[0] + side * rng.uniform(4, 18), start[1] + rng.uniform(-2, 12))
            canvas.paint(capsule(x, y, start, stop, rng.uniform(1.5, 4)), "epidural")
            canvas.paint(capsule(x, y, start, stop, rng.uniform(0.7, 2.8)), "root", texture=0.15)
    canvas.paint(arch, str(rng.choice(["epidural", "fat", "vein", "ligament"])), texture=rng.uniform(0, 0.5))


def paint_arch(rng: np.random.Generator, canvas: Canvas, sizes: Sizes, arch: Field) -> None:
    """Pedicles, laminae, joints and spinous process."""
    x, y = canvas.x, canvas.y
    (sac_a, sac_b), (ox, oy) = sizes.sac, sizes.offset
    thick = rng.uniform(2, 7)
    ring = np.maximum(arch - thick, y - oy - sac_b * rng.uniform(-0.6, 1.2))
    canvas.paint(ring, "cortex")
    canvas.paint(ring + rng.uniform(0.6, 1.8), "marrow", texture=0.2)
    for side in (-1, 1):
        place = (ox + side * (sac_a + rng.uniform(3, 9)), oy + rng.uniform(-9, 4))
        joint = ellipse(x, y, place, (rng.uniform(3, 8), rng.uniform(3, 8)))
        canvas.paint(joint, "cortex")
        canvas.paint(joint + rng.uniform(0.5, 2), "marrow", texture=0.2)
    if rng.random() < 0.8:
        tip = (ox + rng.normal(0, 1.5), oy - sac_b - rng.uniform(8, 35))
        process = capsule(x, y, (ox, oy - sac_b - 3), tip, rng.uniform(1.5, 5))
        canvas.paint(process, "cortex")
        canvas.paint(process + rng.uniform(0.5, 1.5), "marrow", texture=0.2)


def paint_sac(rng: np.random.Generator, canvas: Canvas, sizes: Sizes) -> None:
    """Dura and fluid, with the uneven signal that flowing fluid has."""
    shape = waves(rng, rng.uniform(0, 0.05))
    x, y = canvas.x - sizes.offset[0], canvas.y - sizes.offset[1]
    y = y + rng.uniform(-0.25, 0.25) * (np.abs(x) - sizes.sac[0] / 2) * (y < 0)  # pointed or flat at the back
    sac = lobed(x, y, sizes.sac, shape, rng.uniform(1.8, 2.8))
    if rng.random() < 0.4:  # triangular: cut by the laminae on both sides of the midline
        slope = rng.uniform(0.4, 0.9)
        room = max(rng.uniform(0.75, 1.0) * sizes.sac[1], sizes.cord[1] + sizes.offset[1] + 0.3)
        sac = np.maximum(sac, (np.abs(x) * slope - y - room - 0.5) / np.hypot(1, slope))
    canvas.paint(sac - rng.uniform(0, 0.7), "ligament")
    canvas.paint(sac, "fluid", texture=rng.choice([0.0, 0.08, 0.25, 0.5], p=[0.3, 0.4, 0.2, 0.1]), grain=2)
    if rng.random() < 0.15:  # flow void
        place = (
            rng.normal(0, 0.5) * sizes.sac[0] + sizes.offset[0],
            sizes.offset[1] - rng.uniform(0, 1) * sizes.sac[1],
        )
        void = ellipse(canvas.x, canvas.y, place, (rng.uniform(1, 5), rng.uniform(0.7, 2)))
        canvas.cover((np.clip(0.5 - void, 0, 1) * (sac < 0) * rng.uniform(0.2, 0.9)).astype(np.float32), "cortex")


def paint_roots(rng: np.random.Generator, canvas: Canvas, sizes: Sizes, number: int) -> None:
    """Roots of the cauda equina: spread, or sunk to the back in a crescent or in two heaps."""
    sunk = rng.random() < 0.6
    for _ in range(number):
        angle, reach = rng.uniform(0, 2 * np.pi), np.sqrt(rng.uniform(0, 0.85))
        u, v = np.cos(angle) * reach, np.sin(angle) * reach
        if sunk:
            v = -np.sqrt(1 - u * u) * rng.uniform(0.25, 0.9)
        place = (sizes.offset[0] + u * sizes.sac[0] * 0.9, sizes.offset[1] + v * sizes.sac[1] * 0.9)
        canvas.paint(ellipse(canvas.x, canvas.y, place, (rng.uniform(0.3, 1.1), rng.uniform(0.3, 1.0))), "root")


def paint_rootlets(rng: np.random.Generator, canvas: Canvas, sizes: Sizes) -> None:
    """Rootlets and denticulate ligaments between cord and dura."""
    for side in (-1, 1):
        for height in (-0.6, 0.0, 0.6):
            if rng.random() < 0.35:
                start = (side * sizes.cord[0] * 0.7, height * sizes.cord[1])
                stop = (
                    sizes.offset[0] + side * sizes.sac[0] * 0.95,
                    sizes.offset[1] + rng.uniform(-0.4, 0.6) * sizes.sac[1],
                )
                canvas.paint(capsule(canvas.x, canvas.y, start, stop, rng.uniform(0.1, 0.5)), "root")


def paint_cord(rng: np.random.Generator, canvas: Canvas, sizes: Sizes, *, is_cord: bool) -> None:
    """Cord with gray matter, at times bent, notched or with a lesion."""
    a, b = sizes.cord
    x, y = canvas.x, canvas.y
    if rng.random() < 0.3:
        y = y + rng.normal(0, 0.012) * x * x
    outline = lobed(x, y, (a, b), waves(rng, 0.025), rng.uniform(1.9, 2.5))
    if rng.random() < 0.12:  # pressed in from one side
        angle = rng.choice([-1, 1]) * np.pi / 2 + rng.normal(0, 0.5)
        depth = rng.uniform(0.55, 0.95) * b
        outline = np.maximum(outline, x * np.cos(angle) + y * np.sin(angle) - depth)
    canvas.paint(outline, "white", texture=rng.uniform(0, 0.08), grain=int(rng.integers(0, 3)), is_cord=is_cord)
    inside = np.clip(0.5 - (outline + 0.3) / canvas.edge, 0, 1).astype(np.float32)
    gray = np.full(x.shape, 99.0, dtype=np.float32)
    swell = rng.uniform(0.8, 1.25)
    for side in (-1, 1):
        gray = np.minimum(gray, ellipse(x, y, (side * 0.33 * a, 0.25 * b), (0.17 * a * swell, 0.3 * b * swell)))
        gray = np.minimum(gray, capsule(x, y, (side * 0.22 * a, 0), (side * 0.45 * a, -0.7 * b), 0.07 * a * swell))
    gray = np.minimum(gray, capsule(x, y, (-0.3 * a, 0.05 * b), (0.3 * a, 0.05 * b), 0.09 * b * swell))
    canvas.cover(inside * np.clip(0.5 - gray / max(canvas.edge, 0.4), 0, 1).astype(np.float32), "gray")
    if rng.random() < 0.5:  # the median fissure is dark or bright with fluid, and yet within the outline that is drawn
        fissure = capsule(x, y, (0, b * 1.2), (0, b * rng.uniform(0.3, 0.9)), rng.uniform(0.05, 0.3))
        canvas.cover(inside * np.clip(0.5 - fissure / canvas.edge, 0, 1).astype(np.float32), "fluid")
    if rng.random() < 0.15:
        place = (rng.normal(0, 0.4) * a, rng.normal(0, 0.4) * b)
        spot = ellipse(x, y, place, (rng.uniform(0.5, 3), rng.uniform(0.5, 2)))
        canvas.cover(inside * np.clip(0.5 - spot, 0, 1).astype(np.float32), "lesion")
