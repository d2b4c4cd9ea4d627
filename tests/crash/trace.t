#!/usr/bin/env python3
"""kill -9 of `admin` while mail goes in: of the history, what `posthorn trace` once told it tells again after each kill, by id and by
address, and events of what came later stand behind it. Then a torn tail, as a power cut leaves it.

KILLS: how often (5; ./test --full sets more).
"""
import json
import os
import smtplib
import sys
import threading
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, "tests/lib"))
import mailtools as mail  # noqa: E402
from server import Server  # noqa: E402
from tap import done, eq, ok  # noqa: E402

KILLS = int(os.environ.get("KILLS", "5"))
SENDERS, BEFORE = 3, 30


class Load:
    """Sends, each message from an address of its own; {address: id} of those that were acknowledged."""

    def __init__(self, server):
        self.server, self.ids, self.failed = server, {}, []
        self.changed, self.is_over = threading.Condition(), False
        self.threads = [threading.Thread(target=self.work, args=(i,), daemon=True) for i in range(SENDERS)]
        for t in self.threads:
            t.start()

    def work(self, number):
        try:
            with smtplib.SMTP("127.0.0.1", self.server.port("smtp"), timeout=60) as client:
                client.ehlo("load.example.org")
                for count in range(10 ** 9):
                    if self.is_over:
                        return
                    self.one(client, f"s{number}-{count}@example.org")
        except (OSError, smtplib.SMTPException) as e:
            self.failed.append(repr(e))

    def one(self, client, sender):
        client.mail(sender)
        client.rcpt(self.server.mail("alice"))
        code, text = client.data(mail.message("traced", size=300))
        if code != 250:
            raise smtplib.SMTPDataError(code, text)
        with self.changed:
            self.ids[sender] = text.split()[-1].decode()
            self.changed.notify_all()

    def wait_for(self, more):
        with self.changed:
            wanted = len(self.ids) + more
            return self.changed.wait_for(lambda: len(self.ids) >= wanted or self.failed, 120) and not self.failed

    def stop(self):
        self.is_over = True
        for t in self.threads:
            t.join(60)


def trace(server, what):
    """The events, or None while there is no admin to ask."""
    status, out = server.command("trace", what, "--json")
    if status == 0:
        return [json.loads(line) for line in out.decode().splitlines() if line.startswith("{")]
    return [] if b"nothing is known" in out else None


def patiently(act):
    until = time.monotonic() + 90
    while (got := act()) is None and time.monotonic() < until:
        threading.Event().wait(0.05)
    return got


def told(server, sender, message):
    """What the history says of a message once it says all of it: taken and stored."""
    def both():
        events = patiently(lambda: trace(server, message))
        return events if {"ACCEPTED", "STORED"} <= {e["event"] for e in events} else None
    by_id = patiently(both)
    return by_id, patiently(lambda: trace(server, sender))


def kills(s, load, known):
    for turn in range(KILLS):
        if not ok(load.wait_for(BEFORE), f"kill {turn + 1}: mail goes in before"):
            return
        with load.changed:
            newest = list(load.ids.items())[-3:]
        for sender, message in newest:
            known[(sender, message)] = told(s, sender, message)
        if not ok(all(a and b for a, b in known.values()), f"kill {turn + 1}: the newest messages have their history"):
            return
        os.kill(dict(s.roles())["admin"], 9)
        ok(load.wait_for(BEFORE), f"kill {turn + 1}: mail goes in without the history's keeper")
        lost = [key for key, (by_id, by_address) in known.items()
                if patiently(lambda k=key: trace(s, k[1])) != by_id or patiently(lambda k=key: trace(s, k[0])) != by_address]
        eq(lost, [], f"kill {turn + 1}: what was told of {len(known)} messages is told again, by id and by address")


def torn_tail(s, known):
    """The end of the newest file as a power cut leaves it."""
    folder = os.path.join(s.folder, "data/trace")
    s.kill()
    newest = sorted(name for name in os.listdir(folder) if name.endswith(".events"))[-1]
    with open(os.path.join(folder, newest), "ab") as f:
        f.write(b"\x40\0\0\0" + b"torn" * 5)
    s.start()
    eq([key for key, (by_id, _) in known.items() if trace(s, key[1]) != by_id], [], "a torn tail: the history is there")
    ok("trace-tail" in s.log(), "a torn tail: the log names it")
    mail.send(s, mail.message("after"), s.mail("alice"), sender="after@example.org")
    ok(patiently(lambda: trace(s, "after@example.org") or None), "a torn tail: it goes on")


def main():
    with Server() as s:
        load, known = Load(s), {}
        kills(s, load, known)
        load.stop()
        eq(load.failed, [], "no client heard of it")
        sender, message = list(load.ids.items())[-1]
        ok(told(s, sender, message)[0], "the last message has its history")
        torn_tail(s, known)
        log = [line for line in s.log().split("\n") if "AddressSanitizer" in line or "runtime error:" in line or "panic:" in line]
        eq(log, [], "nothing crashed by itself")
    done()


main()
