#!/usr/bin/env python3
"""Power cuts in the simulator (docs/SIMULATOR.md): nothing that was acknowledged is lost. And the checks can fail: each of a handful of
mutants is caught. And a seed is a run: twice the same trace.

POSTHORN_SIM: the program (build/sim/posthorn-sim). CUTS, SEED: others than the usual ones.
"""
import os
import re
import subprocess
import sys

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, "tests/lib"))
from tap import done, eq, note, ok  # noqa: E402

SIM = os.environ.get("POSTHORN_SIM", os.path.join(TOP, "build/sim/posthorn-sim"))
CUTS, SEED = int(os.environ.get("CUTS", "500")), int(os.environ.get("SEED", "1"))
# Those that take a seed or two each.
MUTANTS = ("frame_not_synced", "answer_before_sync", "record_dropped")
SECONDS = 900


def sim(*words):
    """Its exit status, and what it said."""
    try:
        p = subprocess.run([SIM, *map(str, words)], capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return -1, f"no end after {SECONDS} s"
    return p.returncode, p.stdout + p.stderr


status, said = sim("--seed", SEED, "--cuts", CUTS, "--jobs", 2)
found = re.search(r"(\d+) seeds, (\d+) power cuts", said)
ok(status == 0 and found and int(found[2]) >= CUTS, f"{CUTS} power cuts from seed {SEED} on lose nothing")
note("\n".join(line[2:] for line in said.split("\n") if line.startswith("# ")))

for mutant in MUTANTS:
    status, said = sim("--mutants", mutant, "--trials", 1, "--jobs", 2)
    if not ok(status == 0 and re.search(r"^ok 1 ", said, re.M), f"the mutant {mutant} is caught"):
        note(said)

hashes = []
for _ in range(2):
    status, said = sim("--seed", SEED, "--cuts", 5, "--trace")
    found = re.search(r"^# seed \d+: good, hash ([0-9a-f]{16})$", said, re.M)
    hashes.append(found[1] if found else f"status {status}: {said[-500:]}")
eq(hashes[1], hashes[0], "a seed run twice is the same run")
ok(re.fullmatch("[0-9a-f]{16}", hashes[0]), "and ends well")
done()
