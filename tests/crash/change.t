#!/usr/bin/env python3
"""kill -9 while mailboxes change: flags are set and taken away, messages are appended, copied, moved and expunged, and `store`,
`session` or everything dies in between. A model knows what was acknowledged: after each death it holds, what was under way happened
whole or not at all, no UID is given twice, and UIDVALIDITY stays.

KILLS: how often each (5; ./test --full sets more). SEED: of the choice of commands, to run the same ones again.
"""
import os
import random
import sys
import threading
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, "tests/lib"))
import mailtools as mail  # noqa: E402
from mailmodel import BOXES, Model, select  # noqa: E402
from server import Server  # noqa: E402
from tap import done, eq, note, ok  # noqa: E402

KILLS = int(os.environ.get("KILLS", "5"))
SEED = int(os.environ.get("SEED", str(random.randrange(10 ** 6))))
BEFORE, AFTER, MANY = 20, 20, 15
FLAGS = ("\\Flagged", "\\Seen", "\\Answered", "\\Draft", "work", "\\Deleted")


class Worker:
    """One account's client: one command at a time, so that at most one is under way when the server dies."""

    def __init__(self, server, name, seed):
        self.server, self.name, self.random = server, name, random.Random(seed)
        self.model, self.count, self.deaths = Model(), 0, 0
        self.changed, self.is_over = threading.Condition(), False
        self.thread = threading.Thread(target=self.work, daemon=True)
        self.thread.start()

    def work(self):
        while not self.is_over and not self.model.wrong:
            try:
                client = mail.imap(self.server, self.name, "imaps" if self.random.random() < 0.5 else "imap")
            except (OSError, mail.imaplib.IMAP4.error):
                threading.Event().wait(0.05)
                continue
            try:
                self.model.look(client)
                self.session(client)
            except (OSError, mail.imaplib.IMAP4.error):
                self.deaths += 1
            finally:
                client.shutdown()

    def session(self, client):
        box = self.random.choice(BOXES)
        select(client, box)
        while not self.is_over and not self.model.wrong:
            if not self.model.do(client, self.choose(box)):
                raise mail.imaplib.IMAP4.abort("not now")
            with self.changed:
                self.count += 1
                self.changed.notify_all()

    def choose(self, box):
        have = self.model.boxes[box]
        if not have or (len(have) < MANY and self.random.random() < 0.2):
            return "APPEND", box, None, f"{self.name}-{self.count}"
        uid = self.random.choice(list(have))
        kind = self.random.choices(("STORE", "EXPUNGE", "COPY", "MOVE"), (6, 2 if len(have) < MANY else 6, 1, 2))[0]
        what = (self.random.choice("+-"), self.random.choice(FLAGS)) if kind == "STORE" else None
        return kind, box, uid, what

    def wait_for(self, more):
        with self.changed:
            wanted = self.count + more
            return self.changed.wait_for(lambda: self.count >= wanted or self.model.wrong, 120) and not self.model.wrong

    def stop(self):
        self.is_over = True
        self.thread.join(60)


def running(server, role):
    until = time.monotonic() + 60
    while time.monotonic() < until:
        pid = dict(server.roles()).get(role, 0)
        if pid > 1:
            return pid
    return 0


def main():
    note(f"SEED={SEED}")
    with Server(config=["disable_plaintext_auth = no"]) as s:
        for name in s.accounts:
            client = mail.imap(s, name)
            client.create("Other")
            client.logout()
        workers = [Worker(s, name, SEED + i) for i, name in enumerate(s.accounts)]
        for role in ("store", "session", "all"):
            for turn in range(KILLS):
                if not ok(all(w.wait_for(BEFORE) for w in workers), f"{role} {turn + 1}: mailboxes change before"):
                    break
                if role == "all":
                    s.kill()
                    s.start()
                else:
                    os.kill(running(s, role), 9)
                if not ok(all(w.wait_for(AFTER) for w in workers), f"{role} {turn + 1}: what was acknowledged holds, and it goes on"):
                    break
        for w in workers:
            w.stop()
            client = mail.imap(s, w.name)
            w.model.look(client)
            client.shutdown()
            ok(w.deaths >= KILLS, f"{w.name}: {w.count} commands acknowledged, {w.deaths} connections lost")
            note(f"{w.model.happened} commands without an answer had happened")
            eq("\n".join(w.model.wrong), "", f"{w.name}: everything is as the model says")
        log = [line for line in s.log().split("\n") if "AddressSanitizer" in line or "runtime error:" in line or "panic:" in line]
        eq(log, [], "nothing crashed by itself")
    done()


main()
