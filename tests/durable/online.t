#!/usr/bin/env python3
"""`posthorn fsck --online` of a server that is at work: mail comes in, goes, and is compacted, one checkpoint follows the other, and segments
are emptied and used again under the eyes of fsck. It must find nothing, as nothing is damaged, or say that it could not look: and
when the server rests, it looks.
"""
import json
import os
import random
import sys
import threading

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, "tests/lib"))
import mailtools as mail  # noqa: E402
from server import Server  # noqa: E402
from tap import done, eq, note, ok  # noqa: E402

PASSES = int(os.environ.get("PASSES", "2"))
SEED = int(os.environ.get("SEED", "20261122"))
SIZE = 900000  # below 1 MB, so that they lie in segments


class Worker(threading.Thread):
    """Fills and empties bob's mailbox, and has it compacted, a few times over."""

    def __init__(self, server):
        super().__init__()
        self.server, self.passes, self.failed, self.chance = server, 0, None, random.Random(SEED)

    def turn(self):
        client = mail.imap(self.server, "bob", service="imap")
        for i in range(90):
            if i % 30 == 29:
                self.server.command("compact")  # a checkpoint, at least
            if client.append("INBOX", None, None, mail.message(f"m{i}", size=SIZE))[0] != "OK":
                raise RuntimeError("not stored")
        _, selected = client.select("INBOX")
        for number in range(1, int(selected[0]) + 1):
            if self.chance.random() < 0.9:
                client.store(str(number), "+FLAGS.SILENT", "(\\Deleted)")
        client.expunge()
        client.shutdown()
        status, out = self.server.command("compact")
        if status:
            raise RuntimeError(out.decode())
        self.passes += 1

    def run(self):
        try:
            for _ in range(PASSES):
                self.turn()
        except Exception as e:  # noqa: BLE001 - told by the main thread
            self.failed = e


def look(server):
    """Its exit status; its findings but for notes; and what it said."""
    status, out = server.command("fsck", "--online", "--json")
    text = out.decode()
    if status == 1:
        return status, [], text
    looks = json.loads(text)
    return status, [f for f in looks[0]["findings"] if f["level"] != "note"], text


def main():
    note(f"SEED={SEED}")
    with Server(config=["keep_expunged = 0", "compaction_percent = 0", "disable_plaintext_auth = no"]) as s:
        for i in range(150):
            mail.send(s, mail.message(f"stays {i}", size=SIZE), s.mail("alice"))
        worker = Worker(s)
        worker.start()
        seen, i = {0: 0, 1: 0}, 0
        while worker.is_alive():
            i += 1
            status, findings, text = look(s)
            eq(findings, [], f"look {i}: nothing is damaged, and nothing seems so")
            if ok(status in seen, f"look {i}: exit status {status}"):
                seen[status] += 1
            if status == 1:
                ok("try again" in text, f"look {i}: it says why it could not look")
        eq(worker.failed, None, f"{worker.passes} times mail came, went and was compacted")
        ok(seen[0] > 0, f"{seen[0]} looks saw all, {seen[1]} gave up")
        status, findings, _ = look(s)
        eq((status, findings), (0, []), "when the server rests, all is seen")
    done()


main()
