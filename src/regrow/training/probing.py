"""Every probe, by name and part."""

from regrow.probes.base import PartProbe, Probe
from regrow.registry import members


def every_probe(*, costly: bool = False) -> dict[str, Probe]:
    """All probes with their default fields, by name and part; the costly ones only if asked for.

    A probe of a part is there for the encoder and for the head; the part of any other is "network".
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
