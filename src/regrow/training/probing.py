"""The set of all probes, by name and part."""

from regrow.probes.base import PartProbe, Probe
from regrow.registry import members


def every_probe(*, costly: bool = False) -> dict[str, Probe]:
    """All probes with default fields, as "name.part"; costly ones only with `costly=True`.

    A `PartProbe` is listed for "encoder" and for "head". Any other probe has the part "network".
    """
    probes: dict[str, Probe] = {}
    for name, probe in members("probes").items():
        if probe.costly and not costly:
            continue
        if issubclass(probe, PartProbe):
            probes |= {f"{name}.{part}": probe(part=part) for part in ("encoder", "head")}
        else:
            probes[f"{name}.network"] = probe()
    return probes
