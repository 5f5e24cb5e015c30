"""A small template in closed form for tests: an elliptic cord with four white-matter quarters and a gray core."""

import numpy as np
from scipy import sparse

from qcord.core.grid import Grid
from qcord.core.labels import CSF, DISCS, TRACTS, VERTEBRAE, Region
from qcord.core.template import Template

HALF_AP, HALF_RL = 3.8, 6.0
LEVEL = 16.0
FIELDS = (TRACTS[0], TRACTS[1], TRACTS[4], TRACTS[5], TRACTS[30], CSF)


def straight_template(spacing=0.5, n_levels=5):
    nx, ny, nz = (round(v / spacing) for v in (24, 20, LEVEL * n_levels))
    affine = np.diag([spacing, spacing, spacing, 1])
    affine[:3, 3] = [-spacing * (nx - 1) / 2, -spacing * (ny - 1) / 2 + 2.0, 100.0]
    grid = Grid((nx, ny, nz), affine)
    fine = 5
    sub = (np.arange(fine) + 0.5) / fine - 0.5
    x = (grid.affine[0, 3] + spacing * (np.arange(nx)[:, None] + sub)).ravel()
    y = (grid.affine[1, 3] + spacing * (np.arange(ny)[:, None] + sub)).ravel()
    gx, gy = np.meshgrid(x, y - 2.0, indexing="ij")
    bump = 1 + 0.06 * np.cos(3 * np.arctan2(gy, gx))
    rho = np.hypot(gx / HALF_RL, gy / HALF_AP) / bump

    def share(inside):
        return inside.reshape(nx, fine, ny, fine).mean(axis=(1, 3)).astype(np.float32)

    cord, core = rho <= 1, rho <= 0.45
    fields = [
        share(cord & ~core & (gy < 0) & (gx < 0)),
        share(cord & ~core & (gy < 0) & (gx >= 0)),
        share(cord & ~core & (gy >= 0) & (gx < 0)),
        share(cord & ~core & (gy >= 0) & (gx >= 0)),
        share(core),
        share((rho > 1) & (rho <= 1.6)),
    ]
    volume = np.stack([np.repeat(f[:, :, None], nz, axis=2) for f in fields], axis=-1)
    z = 100.0 + spacing * np.arange(nz)
    first = 2  # C3 on top
    tops = {first + i: 100.0 - spacing / 2 + LEVEL * (n_levels - i) for i in range(n_levels + 1)}
    number = np.zeros(nz, dtype=np.uint8)
    for i in range(n_levels):
        number[(z < tops[first + i]) & (z >= tops[first + i + 1])] = first + i + 1
    return Template(
        name="straight",
        version="1",
        grid=grid,
        cord=volume[..., :5].sum(-1),
        white=volume[..., :4].sum(-1),
        gray=volume[..., 4].copy(),
        fluid=volume[..., 5].copy(),
        vertebrae=np.broadcast_to(number, grid.shape).copy(),
        discs={DISCS[i]: h for i, h in tops.items()},
        vertebra_middles={VERTEBRAE[first + i]: tops[first + i] - LEVEL / 2 for i in range(n_levels)},
        regions=tuple(Region(n, TRACTS.index(n) if n in TRACTS else 36) for n in FIELDS),
        weights=sparse.csr_array(volume.reshape(-1, len(FIELDS))),
    )


def bent_subject(template, grid, *, scale=(1.1, 0.95), turn=0.0):
    """World-to-template map of a curved, scaled and turned copy of the template's cord, and its landmarks."""

    def axis(z):
        s = (z - grid.world(np.array(grid.shape) / 2)[2]) / 40
        middle = grid.world((np.array(grid.shape) - 1) / 2)
        return np.stack([middle[0] + 1.5 * s, middle[1] + 6 * s**2 - 2 * s, z], -1)

    def to_template(world):
        local = world - axis(world[..., 2])
        c, s = np.cos(turn), np.sin(turn)
        x = (c * local[..., 0] + s * local[..., 1]) / scale[0]
        y = (-s * local[..., 0] + c * local[..., 1]) / scale[1] + 2.0
        middle = grid.world((np.array(grid.shape) - 1) / 2)[2]
        z = (world[..., 2] - middle) * 0.9 + 100 + LEVEL * 2.5
        return np.stack([x, y, z], -1)

    def landmark(height):
        middle = grid.world((np.array(grid.shape) - 1) / 2)[2]
        return axis(np.array((height - 100 - LEVEL * 2.5) / 0.9 + middle))

    marks = {n: landmark(h) for n, h in template.discs.items() if 110 < h < 170}
    return to_template, marks
