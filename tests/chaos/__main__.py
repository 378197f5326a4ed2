"""``make chaos SEED=n FAULTS=m``: simulated services, until so many faults have been met."""

from __future__ import annotations

import argparse
import logging
import sys
from collections import Counter
from statistics import median

from cluster.storage.commit import read_commits
from tests.support.service_world import SEED_VARIABLE, Broken, World


def main() -> int:
    """Exit code 0 only if every invariant held."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--faults", type=int, default=1000)
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    met: Counter[str] = Counter()
    settled_s: dict[str, list[float]] = {}
    worlds = jobs = shards = made_again = 0
    while met.total() < given.faults:
        world = World(given.seed + worlds)
        try:
            world.run()
        except Broken as broken:
            print(f"seed {world.seed}: {broken}")
            print(f"its options: {world.options}")
            print(
                f"again: {SEED_VARIABLE}={world.seed} pytest tests/chaos/test_service_simulation.py"
            )
            return 1
        worlds += 1
        jobs += len(world.jobs)
        met += world.faults
        done = sum(len(read_commits(world.truth, job_id)) for job_id in world.jobs)
        shards += done
        made_again += world.attempts - done
        for fault in world.faults:
            settled_s.setdefault(fault, []).append(world.settled_in_s)
    print(f"{'fault':<40}{'times':>8}{'all settled after it, median s':>32}{'longest':>9}")
    for fault, times in met.most_common():
        seconds = settled_s[fault]
        print(f"{fault:<40}{times:>8}{median(seconds):>32.0f}{max(seconds):>9.0f}")
    print(
        f"{worlds} worlds, {jobs} jobs, {met.total()} faults; jobs lost 0, shards lost 0, shards "
        f"committed twice 0; {made_again} attempts beside the {shards} that were committed"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
