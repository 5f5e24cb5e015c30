"""One visit from files to findings, in memory."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.ndimage import maximum_filter

from qcord.anatomy.morphometry import shape_table
from qcord.atlas.extract import extract
from qcord.core.arrays import BoolArray
from qcord.core.errors import EmptyRegion, MissingMetadata
from qcord.core.fit import Fit
from qcord.core.flags import Flag
from qcord.core.image import Image
from qcord.core.template import Template
from qcord.ingest.bids import Visit, find_scans, misnamed
from qcord.ingest.derivatives import find_derivatives, find_landmarks
from qcord.ingest.landmarks import Landmark
from qcord.ingest.series import group_scans
from qcord.maps.fit import fit
from qcord.maps.recipe import Planned, recipe, table_metrics
from qcord.normative.norm import Norms
from qcord.pipeline.field import Known, field_for, find_field
from qcord.pipeline.locate import Cord, carry_cord, find_all_levels, find_cord, locate
from qcord.pipeline.prepare import Prepared, prepare
from qcord.pipeline.settings import Settings
from qcord.report.findings import Field, Findings, Located

Progress = Callable[[str], None]

OWN_NOISE = ("tensor", "kurtosis", "mean-signal-kurtosis")
"""Models whose residuals hold what physiology adds to the noise; those of other models are too few."""
NEAR = 8.0
"""Distance [mm] from the cord up to which models are fitted whose fit takes long."""

ATLAS_COLUMNS = (
    *("participant_id", "session_id", "metric", "unit", "region", "level", "slice", "estimator", "value", "se"),
    *("ci_low", "ci_high", "n_eff", "n_vox", "flag", "source", "se_noise"),
)


@dataclass(frozen=True, eq=False)
class Request:
    """What is asked of a visit.

    Parameters
    ----------
    root : path
        BIDS data set.
    visit : Visit
        Subject and session.
    template : Template
        Template to register to.
    settings : Settings
        Settings of the run.
    derivatives : tuple of path
        Folders with masks, levels and landmarks to use instead of computed ones.
    discs : tuple of Landmark
        Landmarks given by hand.
    norms : Norms or None
        What values are compared with.
    """

    root: Path
    visit: Visit
    template: Template
    settings: Settings = field(default_factory=Settings)
    derivatives: tuple[Path, ...] = ()
    discs: tuple[Landmark, ...] = ()
    norms: Norms | None = None


def process(request: Request, progress: Progress = lambda stage: None) -> Findings:
    """Process one visit.

    Parameters
    ----------
    request : Request
        What to do.
    progress : callable
        Told the name of each stage as it begins.

    Raises
    ------
    MissingMetadata
        If the visit holds no series that qcord uses.
    QcordError
        If a file is unreadable or inconsistent; the message names it.
    """
    progress("read")
    groups, skipped = group_scans(find_scans(request.root, request.visit))
    skipped = (*skipped, *misnamed(request.root, request.visit))
    if not groups:
        why = f" ({skipped[0][1].rstrip('.')})" if skipped else ""
        raise MissingMetadata(
            f"{request.visit.prefix} holds no T2w, T1w, T2star, dwi, MTS or MTR image that can be used{why}; check the "
            "names of its files."
        )
    derivatives = find_derivatives(request.derivatives, request.visit)
    landmarks = (*find_landmarks(derivatives), *request.discs)
    prepared: dict[str, Prepared] = {}
    progress("transmit field")
    field, field_notes = find_field(groups)
    for group in groups:
        if group.kind == "field":
            continue
        progress(f"clean {group.token}")
        prepared[group.token] = prepare(group, request.settings, derivatives)
    cords, notes = _cords(prepared, progress)
    levels, assumed = find_all_levels(
        prepared, cords, derivatives, template=request.template, landmarks=landmarks, centre=request.settings.centre
    )
    located: dict[str, Located] = {}
    for token, cord in cords.items():
        progress(f"register {token}")
        located[token] = locate(prepared[token], cord, levels[token], request.template)
    progress("fit")
    fits, unfitted = _fits(prepared, located, request.settings, field)
    progress("read out")
    notes += [*field_notes, *(n for p in prepared.values() for n in p.notes)]
    notes += [f"{name} was not used: {reason}" for name, reason in skipped]
    return Findings(
        subject=request.visit.subject,
        session=request.visit.session,
        located=located,
        fits=fits,
        metrics=_metrics(request, prepared, located, fits),
        morphometry=_morphometry(request, located),
        quality=_quality(request, prepared, cords, located, fits),
        notes=(*assumed, *unfitted, *notes),
        template=f"{request.template.name} {request.template.version}",
        settings=request.settings.model_dump(),
        extra={token: prepared[token].extra for token in located if prepared[token].extra},
        transmit_field=field,
        protocols={t: one.series.protocol for t, one in prepared.items() if t in located and one.series is not None},
    )


def _cords(prepared: Mapping[str, Prepared], progress: Progress) -> tuple[dict[str, Cord], list[str]]:
    """Cord of each series; where none is found it is carried over from another one, else the series is left out."""
    cords: dict[str, Cord] = {}
    failed: dict[str, str] = {}
    notes: list[str] = []
    for token, one in prepared.items():
        progress(f"find cord {token}")
        try:
            cords[token] = find_cord(one)
        except EmptyRegion as error:
            if one.mask is not None:
                raise
            failed[token] = str(error)
    if not cords:
        raise EmptyRegion(f"No cord was found in any series: {next(iter(failed.values()))}")
    for token, reason in failed.items():
        carried = carry_cord(prepared[token], cords)
        if carried is None:
            notes.append(f"{token} was left out: {reason}")
        else:
            cords[token] = carried
            notes.append(f"No cord was found in {token}; it was {carried.source}, without regard to motion in between.")
    return {token: cords[token] for token in prepared if token in cords}, notes


def _fits(
    prepared: Mapping[str, Prepared], located: Mapping[str, Located], settings: Settings, field: Field | None
) -> tuple[dict[str, tuple[Fit, ...]], list[str]]:
    fits: dict[str, tuple[Fit, ...]] = {}
    notes: list[str] = []
    for token in located:
        one = prepared[token]
        if one.series is None:
            continue
        done = []
        for plan in recipe([one.series]):
            if plan.possible:
                inside = np.asarray(located[token].cord.data, dtype=float) >= 0.5
                known = field_for(plan.model, field, inside, plan.series.image)
                done.append(_fit(plan, one, settings, known, surroundings(inside, plan) if plan.near_cord else None))
                notes += [f"{', '.join(plan.metrics)} of {token}: {known.note}"] if known.note else []
            elif plan.meant:
                notes.append(f"{', '.join(plan.metrics)} of {token} could not be computed: {plan.reason}")
        fits[token] = tuple(done)
    return fits, notes


def surroundings(inside: BoolArray, plan: Planned) -> Image:
    """Mask of the cord and what lies within `NEAR` of it, in the plane of the slices."""
    image = plan.series.image
    spacing = np.asarray(image.grid.spacing, dtype=float)
    steps = [int(np.ceil(NEAR / s)) if k < 2 else 0 for k, s in enumerate(spacing)]
    near = maximum_filter(inside.astype(np.uint8), size=[2 * s + 1 for s in steps])
    return image.derive(near, unit="label")


def _fit(plan: Planned, one: Prepared, settings: Settings, known: Known, near: Image | None = None) -> Fit:
    method = settings.tensor_method if plan.model == "tensor" else None
    sigma = None if plan.model in OWN_NOISE else one.sigma
    return fit(plan.model, plan.series, near, noise=sigma, method=method, given=known.given, given_std=known.std)


def _identity(request: Request) -> dict[str, str]:
    return {"participant_id": request.visit.subject, "session_id": request.visit.session or ""}


def _metrics(
    request: Request,
    prepared: Mapping[str, Prepared],
    located: Mapping[str, Located],
    fits: Mapping[str, tuple[Fit, ...]],
) -> pd.DataFrame:
    tables = []
    for token, done in fits.items():
        maps: dict[str, Image] = {}
        errors: dict[str, Image] = {}
        shifts: dict[str, tuple[Image, ...]] = {}
        for one in done:
            for metric in one.maps:
                if metric in table_metrics(one.model) and metric not in maps:
                    maps[metric] = _unbiased(one, metric)
                    if metric in one.std:
                        errors[metric] = one.noise_std.get(metric, one.std[metric])
                    shifts[metric] = one.shifts_of(metric)
        if maps:
            table = extract(
                maps,
                located[token].atlas,
                std=errors,
                shifts=shifts,
                correlation=prepared[token].correlation,
                map_ratio=request.settings.map_ratio,
            )
            tables.append(table.assign(source=token))
    if not tables:
        return pd.DataFrame(columns=list(ATLAS_COLUMNS))
    joined = pd.concat(tables, ignore_index=True).assign(**_identity(request))
    return joined[list(ATLAS_COLUMNS)]


def _unbiased(one: Fit, metric: str) -> Image:
    """Map without the rise that its noise is expected to cause, which is what may be averaged."""
    if metric not in one.bias:
        return one.maps[metric]
    value = one.maps[metric]
    return value.derive(np.asarray(value.data - np.nan_to_num(one.bias[metric].data)))


def _morphometry(request: Request, located: Mapping[str, Located]) -> pd.DataFrame:
    tables = []
    for token, place in located.items():
        levels = place.atlas.levels
        tables.append(shape_table(place.shape, levels.__getitem__).assign(source=token))
    return pd.concat(tables, ignore_index=True).assign(**_identity(request))[
        [
            *("participant_id", "session_id", "source", "metric", "unit", "level", "slice"),
            *("value", "se", "n_slices", "flag"),
        ]
    ]


def _quality(
    request: Request,
    prepared: Mapping[str, Prepared],
    cords: Mapping[str, Cord],
    located: Mapping[str, Located],
    fits: Mapping[str, tuple[Fit, ...]],
) -> pd.DataFrame:
    rows: list[tuple[str, str, str, float]] = []
    for token, place in located.items():
        one = prepared[token]
        inside = np.asarray(place.cord.data, dtype=float) >= 0.5
        rows.append((token, "cord_slices", "1", float(inside.any(axis=(0, 1)).sum())))
        sure = cords[token].confidence
        if sure is not None:
            rows.append((token, "cord_confidence", "1", float(np.median(sure[sure > 0]))))
        summary = place.quality.summary
        rows += [
            (token, "registration_dice", "1", summary["dice_median"]),
            (token, "registration_dice_worst_slice", "1", summary["dice_min"]),
            (token, "registration_distance", "mm", summary["distance_median_mm"]),
        ]
        rows += [(token, name, unit, value) for (name, unit), value in one.quality.items()]
        rows += _signal_rows(token, one, inside)
        for done in fits.get(token, ()):
            bad = np.asarray(done.flag.data)[inside] != Flag.OK
            rows.append((token, f"{done.model}_flagged_voxels", "percent", 100 * float(bad.mean())))
    table = pd.DataFrame(rows, columns=["source", "metric", "unit", "value"]).assign(**_identity(request))
    return table[["participant_id", "session_id", "source", "metric", "unit", "value"]]


def _signal_rows(token: str, one: Prepared, inside: BoolArray) -> list[tuple[str, str, str, float]]:
    """Signal over noise in the cord: of each kind of volume, as a median over voxels."""
    if one.series is None or one.sigma is None:
        return []
    sigma = np.asarray(one.sigma.data, dtype=float)[inside]
    data = np.asarray(one.series.data, dtype=float)[inside]
    kinds = {"snr": np.ones(data.shape[1], dtype=bool)}
    if "BValue" in one.series.protocol:
        weighted = one.series.protocol["BValue"] > 50
        kinds = {"snr_b0": ~weighted, "snr_weighted": weighted}
    rows = []
    for name, chosen in kinds.items():
        if chosen.any():
            with np.errstate(invalid="ignore", divide="ignore"):
                ratio = data[:, chosen].mean(axis=1) / sigma
            rows.append((token, name, "1", float(np.nanmedian(ratio))))
    if one.correlation is not None:
        rows.append((token, "noise_correlation_factor", "1", float(one.correlation.factor)))
    return rows
