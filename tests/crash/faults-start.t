#!/usr/bin/env python3
"""The Nth system call of a role fails while the server starts, and while it reloads. A start succeeds, perhaps after a role began anew,
or is refused with a sentence and exit status 1 (4: the configuration cannot be read), and the next one succeeds; the store holds what
it held. A reload leaves a server that works, with the old settings or the new ones, no connection is dropped, and the next reload is
taken over.

FAULTS_EACH: how many N for each role and error (0: as many as ./test --full tries, 5); without it, STARTS cases are chosen by SEED.
"""
import os
import random
import re
import signal
import sys
import threading
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, "tests/lib"))
import mailtools as mail  # noqa: E402
from faults import DESCRIPTORS, NAMES, READS, RECEIVES, SENDS, SYNCS, WAITS, WRITES, Faults  # noqa: E402
from server import Server  # noqa: E402
from tap import done, note, ok  # noqa: E402

EACH = os.environ.get("FAULTS_EACH")
STARTS, RELOADS = 10, 20
SEED = int(os.environ.get("SEED", str(random.randrange(10 ** 6))))
SECONDS = 60  # until a start has ended, either way
EVERY = NAMES | READS | WRITES | SYNCS | DESCRIPTORS | RECEIVES | SENDS | WAITS
FAULTS = [("EIO", NAMES | READS | WRITES | SYNCS), ("ENOSPC", NAMES | WRITES | SYNCS), ("EMFILE", DESCRIPTORS), ("EINTR", EVERY),
          ("SHORT", READS | WRITES | RECEIVES | SENDS)]
ROLES = ("supervisor", "store", "checkpoint", "keys", "auth", "lookup", "filter", "dns", "queue", "out", "session", "front", "admin")


def patiently(act, wanted=None):
    until = time.monotonic() + SECONDS
    while True:
        try:
            got = act()
            if wanted is None or got == wanted or time.monotonic() > until:
                return got
        except (OSError, RuntimeError, mail.imaplib.IMAP4.error, mail.smtplib.SMTPException):
            if time.monotonic() > until:
                raise
        threading.Event().wait(0.05)


def cases(faults, count, chosen):
    """[(role, error, kinds, N)]. `count(role, kinds, error)`: the calls of an untouched run."""
    chance, plan = random.Random(SEED), []
    for role in ROLES:
        for error, kinds in FAULTS:
            plan.append((role, error, kinds))
    if EACH is None:
        plan = chance.sample(plan, chosen)
    for role, error, kinds in plan:
        calls = count(role, kinds, error)
        numbers = range(1, calls + 1)
        for n in chance.sample(numbers, min(len(numbers), 1 if EACH is None else int(EACH) or 5)):
            yield role, error, kinds, n


def crashes(server, since):
    return [line for line in server.log()[since:].split("\n") if re.search("Sanitizer|runtime error:|panic:", line)]


def starts(s, faults):
    sent = {}

    def works(key):
        data = mail.message(key)
        patiently(lambda: mail.send(s, data, s.mail("alice")))
        sent[key] = data
        found = patiently(lambda: sorted(mail.without_added(m) for m in mail.fetch_all(s, "alice").values()))
        return found == sorted(sent.values())

    def count(role, kinds, error):
        faults.arm(role, kinds, error, 10 ** 9)
        s.start()
        calls = faults.disarm()[0]
        s.stop()
        return calls

    tried, refused, began = 0, 0, time.monotonic()
    for role, error, kinds, n in cases(faults, count, STARTS):
        what, since = f"start: {role}, {error}, call {n}", len(s.log())
        hung = threading.Timer(SECONDS, lambda: os.killpg(s.process.pid, signal.SIGKILL))
        hung.start()
        faults.arm(role, kinds, error, n)
        started = s.try_start()
        _, failed, call = faults.disarm()
        hung.cancel()
        problems = crashes(s, since)
        if not started:
            refused += 1
            said = [line for line in s.log()[since:].split("\n") if line and not line.startswith("20")]
            if s.process.returncode not in (1, 4) or not said:
                problems.append(f"exit status {s.process.returncode}, and it says {said}")
            s.start()
        if not works(what):
            problems.append("not all of the mail is there")
        s.stop()
        tried += failed > 0
        if problems:
            note(f"{what} ({call}): {problems}\n{s.log()[since:][-3000:]}")
        ok(not problems, f"{what} ({call}): {'it starts' if started else 'it is refused, the next one starts'}")
    note(f"{tried} calls failed, {refused} starts were refused, {time.monotonic() - began:.0f} s")


def greeting(server):
    with mail.smtplib.SMTP("127.0.0.1", server.port("smtp"), timeout=SECONDS) as client:
        return client.ehlo()[1].split()[0].decode()


def reloads(s, faults):
    turn = 0

    def settings():
        nonlocal turn
        turn += 1
        s.config = [f"myhostname = mx{turn}.example.test"]
        s.write_config()
        return f"mx{turn}.example.test"

    def count(role, kinds, error):
        name = settings()
        faults.arm(role, kinds, error, 10 ** 9)
        s.command_good("reload")
        patiently(lambda: greeting(s), name)
        return faults.disarm()[0]

    for role, error, kinds, n in cases(faults, count, RELOADS):
        what, since, old = f"reload: {role}, {error}, call {n}", len(s.log()), patiently(lambda: greeting(s))
        idle = patiently(lambda: mail.imap(s, "alice"))
        name = settings()
        faults.arm(role, kinds, error, n)
        status, out = s.command("reload")
        seen = greeting(s)
        _, failed, call = faults.disarm()
        problems = crashes(s, since)
        if seen not in (old, name):
            problems.append(f"the server calls itself {seen}")
        if status not in (0, 1, 4):
            problems.append(f"exit status {status}: {out}")
        if idle.noop()[0] != "OK":
            problems.append("the connection was dropped")
        idle.shutdown()
        name = settings()
        patiently(lambda: s.command_good("reload"))
        if patiently(lambda: greeting(s), name) != name:
            problems.append(f"the next reload is not taken over: {greeting(s)}")
        if problems:
            note(f"{what} ({call}): {problems}\n{s.log()[since:][-3000:]}")
        ok(not problems, f"{what} ({call}): it works, with the {'new' if seen != old else 'old'} settings")


def main():
    note(f"SEED={SEED}")
    faults = Faults()
    s = Server()
    with s:
        s.stop()
        starts(s, faults)
        s.start()
        reloads(s, faults)
    faults.close()
    done()


main()
