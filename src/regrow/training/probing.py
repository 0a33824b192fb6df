"""All probes on all Learners of a Run, by name."""

from regrow.probes.base import PartProbe, Probe
from regrow.registry import members
from regrow.training.run import Run


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


def measured(
    run: Run, *, fresh: bool = False, costly: bool = False, since: Run | None = None
) -> dict[str, float]:
    """Every probe, the costly ones only if asked for, on every Learner; a lone one goes unnamed.

    `since`: what those compare with that look at a change; by default the start of training.
    """
    probes = every_probe(costly=costly)
    values = run.probe(tuple(probes.values()), fresh=fresh, since=since)
    return {
        name if len(each) == 1 else f"{learner}.{name}": value
        for name, each in zip(probes, values, strict=True)
        for learner, value in each.items()
    }
