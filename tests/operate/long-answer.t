#!/usr/bin/env python3
"""An answer of several pieces (`posthorn trace`) is one answer, whatever happens while it is fetched: whole lines, in order, none
twice."""
import json
import os
import smtplib
import sys
import threading

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, "tests/lib"))
from server import Server  # noqa: E402
from tap import done, eq, ok  # noqa: E402

KEPT = 2000  # events that one answer looks for, the newest (trace_log.h); the messages they are of are told whole
PIECE = 40 * 1024
RUNS = 5


def refusals(s, count=None, stop=None):
    """RCPTs for somebody who does not exist: an event each, that of LMTP, which counts no errors."""
    client = smtplib.LMTP("127.0.0.1", s.port("lmtp"), timeout=60)
    client.ehlo_or_helo_if_needed()
    sent = 0
    while sent != count and not (stop and stop.is_set()):
        if sent % 5 == 0:  # events of many lengths
            client.rset()
            client.mail("m" * (1 + sent % 60) + "@example.org")
        eq(client.rcpt("nobody@example.test")[0], 550, "refused") if sent == 0 else client.rcpt("nobody@example.test")
        sent += 1
    client.close()


def main():
    with Server(accounts=["alice"], services=("lmtp",)) as s:
        refusals(s, KEPT + 300)
        stop = threading.Event()
        others = threading.Thread(target=refusals, args=(s, None, stop))
        others.start()
        whole, ordered, new, newest = [], [], [], []
        try:
            for _ in range(RUNS):
                text = s.command_good("trace", "nobody@example.test", "--json", "--limit", str(KEPT))
                events = []
                lines = text.splitlines()
                newest.append("this is the newest of it" in lines.pop())  # standard error, behind the answer
                for line in lines:
                    try:
                        events.append(json.loads(line))
                    except ValueError:
                        break
                whole.append(len(text) > 2 * PIECE and len(events) == len(lines) and
                             sum(1 for e in events if e["recipient"]) >= KEPT)
                times = [e["at"] for e in events]
                ordered.append(times == sorted(times))
                new.append(times[-1] if times else 0)
        finally:
            stop.set()
            others.join()
        eq(whole, [True] * RUNS, "each answer is of several pieces, and of whole lines")
        eq(newest, [True] * RUNS, "... followed by a word on what is older")
        eq(ordered, [True] * RUNS, "... in their order")
        ok(len(set(new)) > 1, "... while events went on")
        eq(s.crashes(), [], "no role crashed")
    done()


main()
