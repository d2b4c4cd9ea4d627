#!/usr/bin/env python3
"""kill -9 under load: of each role, and of all at once. A verifier keeps what was acknowledged, and after each kill finds every
message of it once, whole; the server comes back by itself (or, when all were killed, is started again).

KILLS: how often each (5; ./test --full sets more).
"""
import hashlib
import os
import select
import signal
import smtplib
import sys
import threading
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, "tests/lib"))
import mailtools as mail  # noqa: E402
from server import Server  # noqa: E402
from tap import done, eq, note, ok  # noqa: E402

KILLS = int(os.environ.get("KILLS", "5"))
SENDERS = 4
BEFORE, AFTER = 10, 10  # acknowledged messages to wait for before and after a kill


class Load:
    """Threads that send over SMTP and append over IMAP until stopped, and keep what was acknowledged."""

    def __init__(self, server):
        self.server, self.acknowledged, self.uncertain = server, {}, set()
        self.changed, self.is_over, self.count = threading.Condition(), False, 0
        self.threads = [threading.Thread(target=self.work, args=(i,), daemon=True) for i in range(SENDERS)]
        for t in self.threads:
            t.start()

    def work(self, number):
        deliver = self.by_smtp if number % 2 == 0 else self.by_append
        while not self.is_over:
            try:
                deliver()
            except (OSError, smtplib.SMTPException, mail.imaplib.IMAP4.error, RuntimeError):
                pass  # a server that is being killed may refuse, close, or say try again

    def one(self):
        with self.changed:
            self.count += 1
            key = f"load-{self.count}"
        return key, mail.message(key, size=500 + 997 * (self.count % 40))

    def note_result(self, key, data, is_acknowledged):
        with self.changed:
            if is_acknowledged:
                self.acknowledged[key] = hashlib.sha256(data).hexdigest()
            else:
                self.uncertain.add(key)
            self.changed.notify_all()

    def attempt(self, act):
        key, data = self.one()
        good = False
        try:
            good = act(data)
        finally:
            self.note_result(key, data, good)

    def by_smtp(self):
        with smtplib.SMTP("127.0.0.1", self.server.port("smtp"), timeout=30) as client:
            while not self.is_over:
                self.attempt(lambda data: client.sendmail("load@example.org", [self.server.mail("alice")], data) == {})

    def by_append(self):
        client = mail.imap(self.server, "alice")
        try:
            while not self.is_over:
                self.attempt(lambda data: client.append("INBOX", None, None, data)[0] == "OK")
        finally:
            client.shutdown()

    def wait_for(self, more):
        with self.changed:
            wanted = len(self.acknowledged) + more
            return self.changed.wait_for(lambda: len(self.acknowledged) >= wanted, 120)

    def stop(self):
        self.is_over = True
        for t in self.threads:
            t.join(60)


def patiently(act):
    """As a real client does while the server comes back: again and again, for a minute at most."""
    until = time.monotonic() + 60
    while True:
        try:
            return act()
        except (OSError, RuntimeError, mail.imaplib.IMAP4.error):
            if time.monotonic() > until:
                raise
            threading.Event().wait(0.2)


def verify(server, load, what):
    """Everything acknowledged is there once and whole; nothing is there that was not sent."""
    found, torn = {}, []
    for data in patiently(lambda: mail.fetch_all(server, "alice")).values():
        data = mail.without_added(data)
        key = mail.re.search(rb"^Subject: (load-\d+)\r$", data, mail.re.M)
        if not key:
            torn.append(data[:200])
            continue
        found.setdefault(key.group(1).decode(), []).append(hashlib.sha256(data).hexdigest())
    with load.changed:
        acknowledged, uncertain = dict(load.acknowledged), set(load.uncertain)
    lost = [k for k in acknowledged if k not in found]
    doubled = [k for k, v in found.items() if len(v) > 1]
    changed = [k for k, v in acknowledged.items() if k in found and found[k] != [v]]
    invented = [k for k in found if k not in acknowledged and k not in uncertain]
    if not ok(not (lost or doubled or changed or torn or invented), f"{what}: {len(acknowledged)} acknowledged are there once, whole"):
        note(f"lost {lost[:20]} doubled {doubled[:20]} changed {changed[:20]} torn {torn[:5]} invented {invented[:20]}")


def running(server, load, role):
    """The role's processes; one that is being restarted has none for the moment, so mail goes in meanwhile."""
    for _ in range(20):
        pids = [pid for name, pid in server.roles() if name == role and pid > 1]
        if pids or not load.wait_for(1):
            return pids
    return []


def kill_role(server, load, role):
    for turn in range(KILLS):
        if not ok(load.wait_for(BEFORE), f"{role} {turn + 1}: mail goes in before"):
            return
        pids = running(server, load, role)
        if not ok(bool(pids), f"{role} {turn + 1}: it runs"):
            return
        os.kill(pids[turn % len(pids)], 9)
        if not ok(load.wait_for(AFTER), f"{role} {turn + 1}: mail goes in again after kill -9"):
            return


def dies_at_work(server, role):
    """It has been asked and does not answer, and then it is dead: the client is told soon, not when all patience is over."""
    with smtplib.SMTP("127.0.0.1", server.port("smtp"), timeout=60) as client:
        client.ehlo()
        client.mail("me@example.org")
        client.rcpt(server.mail("alice"))
        client.docmd("DATA")
        pids = [pid for name, pid in server.roles() if name == role]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        client.send(b"Subject: asked\r\n\r\nThis is asked.\r\n.\r\n")
        select.select([client.sock], [], [], 0.5)  # until it is asked; nobody can see that, and if it comes later the rest holds too
        for pid in pids:
            os.kill(pid, 9)
        eq(client.getreply()[0], 451, f"{role}: it dies while a client waits for it: 451")


def empty(server):
    client = mail.imap(server, "alice")
    try:
        client.select("INBOX")
        client.store("1:*", "+FLAGS.SILENT", "(\\Deleted)")
        return client.expunge()[0]
    finally:
        client.shutdown()


def main():
    with Server(config=["smtpd_client_connection_count_limit = 100"]) as s:
        roles = sorted({name for name, _ in s.roles()} - {"supervisor"})
        ok(len(roles) >= 10, "all roles are there: " + " ".join(roles))
        for role in roles:
            load = Load(s)
            kill_role(s, load, role)
            load.stop()
            verify(s, load, role)
            eq(patiently(lambda: empty(s)), "OK", f"{role}: the mailbox is emptied")
        for role in ("filter", "auth"):
            dies_at_work(s, role)
            patiently(lambda: mail.send(s, mail.message("load-0"), s.mail("bob")))
        load = Load(s)
        for turn in range(KILLS):
            if not ok(load.wait_for(BEFORE), f"all {turn + 1}: mail goes in before"):
                break
            s.kill()
            s.start()
        ok(load.wait_for(AFTER), "all: mail goes in again")
        load.stop()
        verify(s, load, "all")
        log = [line for line in s.log().split("\n") if "AddressSanitizer" in line or "runtime error:" in line or "panic:" in line]
        eq(log, [], "nothing crashed by itself")
    done()


main()
