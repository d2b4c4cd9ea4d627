#!/usr/bin/env python3
"""tests/durable/damage.t for long: many seeds, on a store of several segments."""
import os
import sys

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
os.environ.setdefault("DAMAGE_ROUNDS", "60")
os.environ.setdefault("DAMAGE_SEED", "1000")
os.environ.setdefault("DAMAGE_MB", "90")
os.execv(sys.executable, [sys.executable, os.path.join(TOP, "tests/durable/damage.t")])
