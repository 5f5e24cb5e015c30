"""What all truth of a subject is computed from."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from qcord.core.arrays import FloatArray
from qcord.models.registry import get
from qcord.models.tensor import fractional_anisotropy
from qcord.phantom.acquisition import Acquisition, acquisition, scan_acquisition
from qcord.phantom.apparent import apparent_values
from qcord.phantom.body import Body, make_body
from qcord.phantom.contrast import signal
from qcord.phantom.interior import LesionPlace, place_lesions
from qcord.phantom.microstructure import mean_tensor
from qcord.phantom.parameters import by_rules, model_metrics, model_values
from qcord.phantom.scan import COMPARTMENTS
from qcord.phantom.spec import PhantomSpec
from qcord.phantom.susceptibility import FieldMap, neck_field
from qcord.phantom.tissue import UNITS
from qcord.phantom.values import RegionValues, Tissue

MAPS = {
    "T2w": ("T2",),
    "T2star": ("T2star",),
    "dwi": ("FA", "MD", "AD", "RD"),
    "MTS": ("MTR", "MTsat", "T1", "R1"),
    "multishell": ("FA", "MD", "AD", "RD", "ICVF", "ODI", "ISOVF"),
    "epi": (),
}
"""Values whose maps belong to each series."""

TENSOR_METRICS = ("FA", "MD", "AD", "RD")
TABLE_METRICS = (*TENSOR_METRICS, "MTR", "MTsat", "T1", "R1", "T2", "T2star")
_UP = np.array([0.0, 0.0, 1.0])


@dataclass(frozen=True, eq=False)
class Facts:
    """A subject in a scanner.

    Parameters
    ----------
    spec : PhantomSpec
    body : Body
        Geometry.
    values : RegionValues
        Tissue of the cord.
    lesions : tuple of LesionPlace
        Damaged ellipsoids.
    plans : mapping of str to Acquisition
        Series to be measured.
    transfer : Acquisition
        The MT images, on which the true MTR depends.
    field : FieldMap or None
        Static field.
    """

    spec: PhantomSpec
    body: Body
    values: RegionValues
    lesions: tuple[LesionPlace, ...]
    plans: Mapping[str, Acquisition]
    transfer: Acquisition
    field: FieldMap | None

    @classmethod
    def of(cls, spec: PhantomSpec) -> "Facts":
        """Facts of a specification."""
        body = make_body(spec)
        plans = {}
        site = {"InstitutionName": spec.person["site"]} if "site" in spec.person else {}
        for name in spec.series:
            scan = spec.scan(name)
            plan = acquisition(name, body, spec.tesla) if scan is None else scan_acquisition(scan, body, spec.tesla)
            plans[name] = replace(plan, metadata={**plan.metadata, **site}) if site else plan
        return cls(
            spec,
            body,
            RegionValues.of(spec, body),
            place_lesions(spec.lesions, body, spec.length_factor),
            plans,
            acquisition("MTS", body),
            neck_field(body, spec.tesla) if spec.effects.susceptibility else None,
        )

    @property
    def healthy(self) -> "Facts":
        """The same without compression and lesions in its tissue."""
        return replace(self, values=replace(self.values, pinched={}, lesions=()))

    def tissue(self, height: FloatArray, part: int = 0) -> Tissue:
        """Values of the cord at template heights (n,), with MTR; see `RegionValues.at`."""
        tissue = self.values.at(height, part)
        # the transmit field is left at its nominal value: MTR is that of a perfect scanner
        pair = self.transfer.protocol.take([0, 1])
        images = signal("MTS", tissue.values, pair, tangent=_UP, gradient_echo=self.spec.gradient_echo)
        ratio = np.asarray(100 * (1 - images[..., 0] / images[..., 1]))
        return replace(tissue, values={**tissue.values, "MTR": ratio})

    def series_values(self, plan: Acquisition, tissue: Tissue) -> dict[str, FloatArray]:
        """True values (n, t) that belong to a series, by metric."""
        if plan.name in MAPS and not plan.model:
            found = compartment_values(tissue) if plan.formula == COMPARTMENTS else {}
            return {m: found[m] if m in found else tissue[m] for m in MAPS[plan.name]}
        model = get(plan.model)
        if plan.formula != COMPARTMENTS:
            return model_values(model, tissue, self.spec.tesla)
        found = compartment_values(tissue)
        if plan.model != "tensor":
            found |= (
                model_values(model, tissue, self.spec.tesla)
                if by_rules(model)
                else apparent_values(plan.model, tissue, plan.protocol)
            )
        return found

    def units(self, plan: Acquisition) -> dict[str, str]:
        """Unit of each value that belongs to a series."""
        if plan.name in MAPS and not plan.model:
            return {m: UNITS[m] for m in MAPS[plan.name]}
        units = model_metrics(get(plan.model))
        if plan.formula == COMPARTMENTS:
            return {m: UNITS[m] for m in MAPS["multishell"]} | units
        return units

    def providers(self) -> dict[str, Acquisition | None]:
        """Which series each metric of the regional truth is taken from; None for the tissue table.

        Anisotropy and diffusivities are those of the tensor scan where there is one, else of the first other diffusion
        scan.
        """
        chosen: dict[str, Acquisition | None] = dict.fromkeys(TABLE_METRICS)
        for plan in self.plans.values():
            for metric in self.units(plan):
                loose = metric in TENSOR_METRICS and chosen[metric] is None and "dwi" not in self.spec.series
                if metric not in chosen or (loose and "BValue" in plan.protocol):
                    chosen[metric] = plan
        return chosen


def compartment_values(tissue: Tissue) -> dict[str, FloatArray]:
    """Fractions of the compartments, and anisotropy and diffusivities (n, t) of their mean tensor."""
    elements = np.moveaxis(mean_tensor(tissue.values, _UP), -1, 0)
    along, across = elements[2], elements[0]
    found = {"FA": fractional_anisotropy(elements), "MD": (along + 2 * across) / 3, "AD": along, "RD": across}
    return found | {m: tissue[m] for m in ("ICVF", "ODI", "ISOVF")}
