#!/usr/bin/env python3
"""kill -9 of `queue`, `store` and `out` while mail goes to a slow server: nothing is lost, and all of it goes on at once. The death
of `queue` or `store` sends nothing twice; the death of `out` only what it was at (docs/QUEUE.md).

KILLS: how often each (3; ./test --full sets more).
"""
import os
import re
import smtplib
import sys
import threading
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, "tests/lib"))
import mailtools as mail  # noqa: E402
from server import Server  # noqa: E402
from sink import Sink  # noqa: E402
from tap import done, eq, note, ok  # noqa: E402

KILLS = int(os.environ.get("KILLS", "3"))
BEFORE, UNDER_WAY, AFTER = 20, 5, 10
MOMENT = 2.0  # seconds that an answer may take from the other server to our disk, or a message from our socket to it


class Slow(Sink):
    """Knows when each copy came, and when its answer left: {key: [[came, answered, data]]}."""

    def __init__(self):
        super().__init__(seconds=0.1)
        self.copies = {}

    def take(self, message, connection):
        key = re.search(rb"^Subject: (\S+)\r$", message.data, re.M).group(1).decode()
        copy = [time.monotonic(), None, message.data]
        with self.changed:
            self.copies.setdefault(key, []).append(copy)
        reply = super().take(message, connection)
        copy[1] = time.monotonic()
        return reply

    def wait_until(self, good, seconds=100):
        with self.changed:
            return self.changed.wait_for(lambda: good(self), seconds)


class Load:
    """Sends until stopped; {key: bytes} of what was acknowledged."""

    def __init__(self, server, name):
        self.server, self.name, self.sent, self.is_over = server, name, {}, False
        self.thread = threading.Thread(target=self.work, daemon=True)
        self.thread.start()

    def work(self):
        number = 0
        while not self.is_over:
            try:
                with smtplib.SMTP("127.0.0.1", self.server.port("smtp"), timeout=60) as client:
                    while not self.is_over:
                        number += 1
                        self.send(client, number)
            except (OSError, smtplib.SMTPException):
                pass  # without a store there is no 250

    def send(self, client, number):
        key = f"{self.name}-{number}"
        data = mail.message(key, size=700 + 997 * (number % 80), to="a@sink.test")
        client.sendmail("load@example.org", ["a@sink.test"], data)
        self.sent[key] = data

    def stop(self):
        self.is_over = True
        self.thread.join(60)


def pids(server, role):
    return [pid for name, pid in server.roles() if name == role and pid > 1]


def kill_often(server, sink, role):
    """When each kill was."""
    times = []
    for turn in range(KILLS):
        had = len(sink.messages)
        ok(sink.wait_until(lambda s: len(s.messages) >= had + BEFORE and s.under_way >= UNDER_WAY), f"{role} {turn + 1}: mail goes out")
        victims = pids(server, role)
        if not ok(bool(victims), f"{role} {turn + 1}: it runs"):
            break
        os.kill(victims[turn % len(victims)], 9)
        times.append(time.monotonic())
        had = len(sink.messages)
        ok(sink.wait_until(lambda s: len(s.messages) >= had + AFTER), f"{role} {turn + 1}: it goes on after kill -9")
    return times


def verify(sink, load, role, kills):
    ok(sink.wait_until(lambda s: all(key in s.copies for key in load.sent)), f"{role}: all {len(load.sent)} messages arrive")
    lost = [key for key in load.sent if key not in sink.copies]
    changed = [key for key, data in load.sent.items() for copy in sink.copies.get(key, []) if mail.without_added(copy[2]) != data]
    eq((lost[:20], changed[:20]), ([], []), f"{role}: none is lost, none changed")
    twice, wrong = [key for key in load.sent if len(sink.copies.get(key, [])) > 1], []
    for key in twice:
        came, answered, _ = sink.copies[key][0]
        if role != "out" or not any(came <= k + MOMENT and (not answered or k - MOMENT <= answered) for k in kills):
            wrong.append((key, came, answered))
    note(f"{role}: {len(twice)} of {len(load.sent)} arrived twice")
    if not ok(not wrong, f"{role}: what arrived twice was in a stated window"):
        note(f"kills {kills} {wrong[:10]}")


def main():
    with Slow() as sink, Server(services=("smtp", "imaps"), config=[
            "mynetworks = 127.0.0.0/8", "out_processes = 2", "minimal_backoff_time = 1s", "maximal_backoff_time = 2s",
            f"transport_maps = inline:{{ {{sink.test = smtp:[127.0.0.1]:{sink.port}}} }}"]) as s:
        for role in ("queue", "store", "out"):
            load = Load(s, role)
            kills = kill_often(s, sink, role)
            load.stop()
            verify(sink, load, role, kills)
        for _ in range(600):
            left = s.command_good("queue", "list")
            if "empty" in left:
                break
            mail.imap(s, "alice").logout()
        eq(left, "The queue is empty.\n", "nothing is left in the queue")
        log = [line for line in s.log().split("\n") if "AddressSanitizer" in line or "runtime error:" in line or "panic:" in line]
        eq(log, [], "nothing crashed by itself")
        if os.environ.get("KEEP_LOG"):
            os.system(f"cp {s.log_path} {os.environ['KEEP_LOG']}")
    done()


main()
