"""People of a cohort: the published slopes and spreads, scanners, and one seed for all."""

import numpy as np
import pytest

from qcord.core.errors import UnknownName
from qcord.phantom import cohort as c
from qcord.phantom.effects import usual_effects
from qcord.phantom.facts import Facts
from qcord.phantom.spec import PhantomSpec, preset


@pytest.fixture(scope="module")
def people():
    return c.cohort(preset("healthy"), 900, 5)


def test_one_alone_is_average():
    (spec,) = c.cohort(preset("healthy"), 1, 3)
    assert (spec.area_factor, spec.length_factor, spec.curvature) == (1, 1, 1)
    assert not spec.factors
    assert spec.label == "healthy01"
    assert spec.seed == 3000


def test_the_same_seed_gives_the_same_people():
    first, again, other = (c.cohort(preset("ms"), 6, seed) for seed in (5, 5, 6))
    assert [s.replace(tissues={}) for s in first] == [s.replace(tissues={}) for s in again]
    assert first[0].area_factor != other[0].area_factor
    longer = c.cohort(preset("ms"), 9, 5)
    assert [s.area_factor for s in longer[:6]] == [s.area_factor for s in first]


def test_area_follows_age_and_sex(people):
    """Linear regression finds the slopes again, within three standard errors."""
    area = np.array([s.area_factor for s in people]) * c.MEAN_AREA
    age = np.array([s.person["age"] for s in people])
    male = np.array([s.person["sex"] == "M" for s in people], dtype=float)
    design = np.stack([np.ones_like(age), age, male], axis=1)
    found, residual, *_ = np.linalg.lstsq(design, area, rcond=None)
    sigma = np.sqrt(residual[0] / (len(people) - 3))
    error = sigma * np.sqrt(np.diag(np.linalg.inv(design.T @ design)))
    assert abs(found[1] - c.AREA_PER_YEAR) < 3 * error[1]
    assert abs(found[2] - (74.3 - 69.6)) < 3 * error[2]
    assert sigma == pytest.approx(6.36, rel=0.06)
    assert 0.44 < male.mean() < 0.56
    assert age.mean() == pytest.approx(30.1, abs=1.0)


def test_values_spread_between_people_and_scanners(people):
    """FA and MTsat of each vendor lie as far apart as in the multi-centre study; people of a site spread less."""
    for metric in ("FA", "MD", "MTsat"):
        by_site = [np.log([s.factors[metric] for s in people if s.person["site"] == f"site{k:02d}"]) for k in (1, 2, 3)]
        sites = c.make_sites(3, 5)
        for values, site in zip(by_site, sites, strict=True):
            assert values.mean() == pytest.approx(np.log(site.factors[metric]), abs=0.012)
            assert values.std() == pytest.approx(c.PERSON_SPREAD[metric], rel=0.2)
    assert [s.vendor for s in sites] == ["Siemens", "Philips", "GE"]
    for site in c.make_sites(3, 1):
        for metric, factor in site.factors.items():
            usual = c.VENDORS[site.vendor].get(metric, 1.0)
            assert abs(np.log(factor / usual)) < 4 * c.SITE_SPREAD[metric]


def test_men_differ_from_women_as_published(people):
    logs = {sex: np.mean([np.log(s.factors["T1"]) for s in people if s.person["sex"] == sex]) for sex in "FM"}
    assert logs["M"] - logs["F"] == pytest.approx(c.SEX_DIFFERENCE["T1"], abs=0.007)


def test_sites_have_their_transmit_field_where_there_is_one():
    specs = c.cohort(preset("healthy").replace(effects=usual_effects("transmit")), 6, 2)
    assert [s.effects.transmit_mean for s in specs] == [1.0, 0.949, 1.026] * 2
    assert all(not s.effects.transmits for s in c.cohort(preset("healthy"), 3, 2))


def test_disease_differs_from_person_to_person():
    ms, dcm = c.cohort(preset("ms"), 30, 1), c.cohort(preset("dcm"), 30, 1)
    assert {len(s.lesions) for s in ms} == {2, 3, 4, 5}
    assert len({lesion.tract for s in ms for lesion in s.lesions}) == 4
    assert len({s.compression.disc for s in dcm}) == 4
    severity = np.array([s.compression.severity for s in dcm])
    assert 0.3 < severity.mean() < 0.5
    assert all(bool(s.lesions) == (s.compression.severity > 0.35) for s in dcm)
    worst = dcm[int(severity.argmax())].compression.factors["FA"]
    assert worst < dcm[int(severity.argmin())].compression.factors["FA"] < 1
    assert 50 < np.mean([s.person["age"] for s in dcm]) < 70
    for spec in (*ms[:8], *dcm[:4]):
        facts = Facts.of(spec.replace(series=()))
        assert len(facts.lesions) == len(spec.lesions)


def test_tables_of_people():
    specs = c.cohort(preset("dcm"), 4, 1, sites=2)
    table = c.participants(specs)
    assert list(table.columns) == ["participant_id", "age", "sex", "site", "scanner"]
    assert list(table["site"]) == ["site01", "site02", "site01", "site02"]
    truth = c.person_truth(specs)
    assert list(truth["participant_id"]) == ["sub-dcm01", "sub-dcm02", "sub-dcm03", "sub-dcm04"]
    assert {"area_factor", "compressed_disc", "compression", "factor_FA", "factor_MTsat"} <= set(truth.columns)
    assert len(c.cohort(PhantomSpec(label="p"), 120, 1)[0].label) == len("p001")


def test_factors_of_people_must_be_metrics():
    with pytest.raises(UnknownName, match="not a metric"):
        PhantomSpec(factors={"height": 1.1})
