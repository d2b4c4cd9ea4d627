#!/usr/bin/env python3
"""How long a large store is away after kill -9: from the start to the first 220, and to the first mail taken again.

RECOVERY_GB: how large (10; 1 where the disk has no room for it). The store must be back in RECOVERY_SECONDS (2) and hold everything.
"""
import os
import shutil
import smtplib
import socket
import sys
import threading
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, "tests/lib"))
import mailtools as mail  # noqa: E402
from server import Server  # noqa: E402
from tap import done, eq, note, ok  # noqa: E402

SENDERS, SIZE, ACCOUNTS = 4, 32000, 20
SECONDS = float(os.environ.get("RECOVERY_SECONDS", "2"))


def gigabytes(folder):
    wanted = float(os.environ.get("RECOVERY_GB", "10"))
    return wanted if shutil.disk_usage(folder).free > 2 * wanted * 2 ** 30 else min(wanted, 1)


class Filler:
    """Sends until so many messages were acknowledged, and goes on until stopped, so that the kill comes in the middle of work."""

    def __init__(self, server, names, wanted):
        self.server, self.names, self.wanted = server, names, wanted
        self.counts, self.changed, self.is_over = {n: 0 for n in names}, threading.Condition(), False
        self.threads = [threading.Thread(target=self.work, args=(i,), daemon=True) for i in range(SENDERS)]
        for t in self.threads:
            t.start()

    def work(self, number):
        data, turn = mail.message("filler", size=SIZE), number
        try:
            with smtplib.SMTP("127.0.0.1", self.server.port("smtp"), timeout=60) as client:
                while not self.is_over:
                    name = self.names[turn % len(self.names)]
                    turn += SENDERS
                    client.sendmail("load@example.org", [self.server.mail(name)], data)
                    with self.changed:
                        self.counts[name] += 1
                        self.changed.notify_all()
        except (OSError, smtplib.SMTPException):
            pass  # the kill

    def wait(self):
        with self.changed:
            return self.changed.wait_for(lambda: sum(self.counts.values()) >= self.wanted, 3600)

    def stop(self):
        self.is_over = True
        for t in self.threads:
            t.join(60)


def until_greeting(server):
    """Seconds from the start of the process to the first 220."""
    ready = threading.Thread(target=server.start)
    began = time.monotonic()
    ready.start()
    while True:
        try:
            with socket.create_connection(("127.0.0.1", server.port("smtp")), timeout=60) as s:
                if s.recv(4) == b"220 ":
                    break
        except OSError:
            threading.Event().wait(0.01)
    took = time.monotonic() - began
    ready.join()
    return took, began


def messages_in(server, name):
    client = mail.imap(server, name)
    try:
        return int(client.select("INBOX", readonly=True)[1][0])
    finally:
        client.shutdown()


def main():
    names = [f"user{i}" for i in range(ACCOUNTS)]
    with Server(accounts=names, config=["log_level = info", "smtpd_client_connection_count_limit = 100"]) as s:
        size = gigabytes(s.folder)
        filler = Filler(s, names, int(size * 2 ** 30 / SIZE))
        ok(filler.wait(), f"{size} GB of mail are in")
        s.kill()
        filler.stop()
        took, began = until_greeting(s)
        mail.send(s, mail.message("after"), s.mail(names[0]))
        note(f"first 220 after {took:.2f} s, first mail taken after {time.monotonic() - began:.2f} s")
        note("\n".join(line for line in s.log().split("\n") if "store-recovered" in line)[-300:])
        ok(took < SECONDS, f"the first 220 within {SECONDS} s")
        filler.counts[names[0]] += 1
        lost = {n: c - messages_in(s, n) for n, c in filler.counts.items() if messages_in(s, n) < c}
        eq(lost, {}, "everything acknowledged is there")
    done()


main()
