"""Makes src/regrow/stats/boundaries.json: the level of every usual look, by simulation.

    python tools/boundaries.py [--paths 4_000_000]

Takes a few minutes and half a gigabyte of memory for each million paths.
"""

import argparse
import json
from pathlib import Path

from regrow.stats.sequential import LARGEST, simulated_levels, usual_looks

FILE = Path(__file__).parents[1] / "src" / "regrow" / "stats" / "boundaries.json"
CONFIDENCE = 0.95


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--paths", type=int, default=4_000_000)
    paths = parser.parse_args().paths
    looks = usual_looks(LARGEST)
    levels = simulated_levels(looks, 1 - CONFIDENCE, paths, 1)
    held = {n: float(f"{p:.4g}") for n, p in zip(looks, levels, strict=True)}
    content = {"confidence": CONFIDENCE, "paths": paths, "levels": held}
    print(held)
    FILE.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
