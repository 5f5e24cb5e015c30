import numpy as np
import pytest
from scipy import integrate, stats

from federation_sites import hospital
from qcord.core.errors import ImplausibleValue
from qcord.normative.federation.exchange import joint
from qcord.normative.federation.privacy import (
    SE_OF_RANGE,
    Bounds,
    clip,
    noise_scale,
    noisy,
    normals,
    possible_designs,
    privacy_loss,
    sensitivity,
)
from qcord.normative.statistics import grouped, rows
from qcord.normative.terms import Terms

BOUNDS = Bounds({"FA": (0.4, 0.95), "MD": (0.5e-3, 1.5e-3)})
DESIGNS = [Terms(()), Terms((20.0, 50.0, 80.0)), Terms(), Terms((), sex=False), Terms((), height=True)]


def released(x, u, w):
    """Vector that one person adds to, from the definition: one set of people, as many cells as values."""
    upper = np.triu_indices(len(x))
    parts = [np.outer(x, x)[upper]]
    for value, error in zip(u, w, strict=True):
        parts += [value * x, [value**2, error]]
    return np.concatenate(parts)


@pytest.mark.parametrize("terms", DESIGNS, ids=lambda t: "-".join(t.names))
@pytest.mark.parametrize("n_cells", [1, 3])
def test_no_person_moves_the_sums_by_more_than_the_sensitivity_and_one_moves_them_by_just_it(terms, n_cells):
    g = np.random.default_rng(1)
    bounds = Bounds({}, height=(190, 200))
    designs = possible_designs(terms, bounds)
    largest = sensitivity(terms, bounds, 1, n_cells)
    sizes = []
    for x in designs:
        anyone = released(x, g.uniform(-1, 1, n_cells), g.uniform(0, 1, n_cells))
        corner = released(x, g.choice([-1.0, 1.0], n_cells), np.ones(n_cells))
        assert np.linalg.norm(anyone) < np.linalg.norm(corner)
        sizes.append(np.linalg.norm(corner))
    assert max(sizes) == pytest.approx(largest, rel=1e-12)


def test_leaving_a_person_out_moves_the_sums_of_the_package_by_less_than_the_sensitivity():
    """Every person of a site is left out in turn; ages and values far outside the bounds are among them."""
    terms, (low, high) = Terms(), BOUNDS.of("FA")
    table = hospital("a", 30, seed=4)
    table = table[table["metric"] == "FA"].reset_index(drop=True)
    table.loc[:9, "value"] = [-5, 5, 0.1, 0.99, 0.5, 0.4, 0.95, 2, -1, 0.3]
    table.loc[[1, 10, 11, 12, 13], "age"] = [99.0, 3.0, 20.7, 80.2, 15.0]

    def vector(part):
        group = clip(rows(part.assign(se=0.2), terms), terms, BOUNDS, "FA")
        s = grouped(group, terms)
        u = (group.value - (low + high) / 2) / ((high - low) / 2)
        assert np.abs(u).max() <= 1 + 1e-12
        w = s.count[0] * s.variance[0] / (SE_OF_RANGE * (high - low)) ** 2
        return np.concatenate([s.xx[0][np.triu_indices(len(terms.names))], group.design.T @ u, [u @ u, w]])

    whole = vector(table)
    moved = [np.linalg.norm(whole - vector(table.drop(index=k))) for k in range(len(table))]
    largest = sensitivity(terms, BOUNDS, 1, 1)
    assert max(moved) <= largest * (1 + 1e-12)
    assert max(moved) > 0.99 * largest


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("delta", [1e-3, 1e-6])
def test_the_noise_is_the_smallest_that_keeps_the_budget(epsilon, delta):
    """Delta is the mass by which one Gaussian exceeds exp(epsilon) times the other, here by integration."""
    scale = noise_scale(2.0, epsilon, delta) / 2.0

    def excess(x):
        return stats.norm.pdf(x, 1, scale) - np.exp(epsilon) * stats.norm.pdf(x, 0, scale)

    start = 0.5 + epsilon * scale**2
    mass, _ = integrate.quad(excess, start, start + 12 * scale, epsabs=1e-14, epsrel=1e-8, limit=200)
    assert mass == pytest.approx(delta, rel=1e-5)
    assert privacy_loss(scale * 0.99, epsilon) > delta
    classic = np.sqrt(2 * np.log(1.25 / delta)) / epsilon
    assert epsilon > 1 or scale < classic


def test_noise_has_the_stated_spread_and_is_the_same_for_the_same_seed():
    drawn = normals(123, 20_000)
    assert stats.kstest(drawn, "norm").pvalue > 1e-3
    np.testing.assert_array_equal(drawn, normals(123, 20_000))
    assert abs(np.corrcoef(drawn, normals(124, 20_000))[0, 1]) < 0.03


def test_noisy_sums_are_off_by_the_stated_noise_and_always_possible():
    terms, bounds, sigma = Terms(()), BOUNDS.of("FA"), 0.3
    table = hospital("a", 400, seed=2)
    table = table[table["metric"] == "FA"]
    exact = grouped(clip(rows(table, terms), terms, BOUNDS, "FA"), terms)
    p, half = 3, (bounds[1] - bounds[0]) / 2
    drawn = [noisy(exact, bounds, sigma, normals(k, 6), normals(10_000 + k, p + 2)) for k in range(600)]
    off = np.array([(d.xx[0] - exact.xx[0])[np.triu_indices(p)] for d in drawn])
    np.testing.assert_allclose(off.std(axis=0), sigma, rtol=0.1)
    np.testing.assert_allclose(off.mean(axis=0), 0, atol=4 * sigma / np.sqrt(600))
    scaled = np.array([(d.xy[0] - sum(bounds) / 2 * d.xx[0, :, 0]) / half for d in drawn])
    np.testing.assert_allclose(scaled.std(axis=0), sigma, rtol=0.1)
    few = grouped(clip(rows(table.head(12), terms), terms, BOUNDS, "FA"), terms)
    for k in range(200):
        matrix = joint(noisy(few, bounds, 20.0, normals(k, 6), normals(10_000 + k, p + 2)))[0]
        assert np.linalg.eigvalsh(matrix).min() > 0


def test_bounds_must_be_stated_and_budgets_sensible():
    with pytest.raises(ImplausibleValue, match="do not come from the data"):
        BOUNDS.of("T1")
    with pytest.raises(ImplausibleValue, match="no interval"):
        Bounds({"FA": (1.0, 0.0)}).of("FA")
    for epsilon, delta in ((0, 1e-6), (1, 0), (1, 1), (-1, 1e-6), (np.nan, 1e-6)):
        with pytest.raises(ImplausibleValue, match="no budget"):
            noise_scale(1.0, epsilon, delta)
