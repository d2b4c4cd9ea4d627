#!/usr/bin/env python3
"""Compaction on the real server: mail comes and goes until segments are mostly waste, `posthorn compact` gives them back, and kill -9 of
everything strikes in between. Every message that is wanted is there after each kill, byte for byte, also when the index is made anew
from what is left of the log.

KILLS: how often (5; ./test --full sets more).
"""
import hashlib
import os
import random
import sys
import threading

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, "tests/lib"))
import mailtools as mail  # noqa: E402
from server import Server  # noqa: E402
from tap import done, eq, note, ok  # noqa: E402

KILLS = int(os.environ.get("KILLS", "5"))
SEED = int(os.environ.get("SEED", "20261122"))
SEGMENT = 64 * 1024 * 1024
SIZE = 800000  # below 1 MB, so that they lie in segments


def segments(server):
    """Those that hold anything."""
    folder = os.path.join(server.folder, "data/store/log")
    sizes = [os.path.getsize(os.path.join(folder, name)) for name in os.listdir(folder) if name.endswith(".seg")]
    return sum(1 for size in sizes if size > 4096)


class Box:
    """What is in alice's mailbox: the hash of each message, by its subject."""

    def __init__(self, server):
        self.server, self.wanted, self.count = server, {}, 0

    def fill(self, bytes_more):
        client = mail.imap(self.server, "alice", service="imap")
        for _ in range(bytes_more // SIZE + 1):
            self.count += 1
            data = mail.message(f"m{self.count}", size=SIZE)
            if client.append("INBOX", None, None, data)[0] != "OK":
                raise RuntimeError(f"m{self.count} was not stored")
            self.wanted[f"m{self.count}"] = hashlib.sha256(data).hexdigest()
        client.shutdown()

    def thin(self, chance):
        """Expunges all but some."""
        client = mail.imap(self.server, "alice", service="imap")
        client.select("INBOX")
        _, answer = client.uid("FETCH", "1:*", "(UID BODY.PEEK[HEADER.FIELDS (SUBJECT)])")
        for part in answer:
            if isinstance(part, tuple) and chance.random() < 0.8:
                subject = mail.re.search(rb"Subject: (m\d+)", part[1]).group(1).decode()
                uid = mail.re.search(rb"UID (\d+)", part[0]).group(1).decode()
                client.uid("STORE", uid, "+FLAGS.SILENT", "(\\Deleted)")
                del self.wanted[subject]
        eq(client.expunge()[0], "OK", "most of it is expunged")
        client.shutdown()

    def check(self, what):
        found = {}
        for data in mail.fetch_all(self.server, "alice").values():
            subject = mail.re.search(rb"^Subject: (m\d+)\r$", data, mail.re.M).group(1).decode()
            found[subject] = hashlib.sha256(data).hexdigest()
        if not ok(found == self.wanted, f"{what}: all {len(self.wanted)} messages are there, byte for byte"):
            note(f"lost {sorted(set(self.wanted) - set(found))} too many {sorted(set(found) - set(self.wanted))}")


def compact(server):
    status, out = server.command("compact")
    return status, out.decode()


def struck(server, box, turn, chance):
    """kill -9 while it compacts, after a time that is another one at each turn."""
    stopped = threading.Event()

    def run():
        compact(server)  # its connection breaks
        stopped.set()

    tool = threading.Thread(target=run)
    tool.start()
    finished = stopped.wait(chance.random() * 1.2)
    server.kill()
    tool.join()
    server.start()
    box.check(f"kill {turn + 1} {'after' if finished else 'during'} compaction")
    return not finished


def rebuilt(server, box, what):
    server.stop()
    for name in ("index/data.mdb", "index/lock.mdb"):
        os.unlink(os.path.join(server.folder, "data/store", name))
    since = len(server.log())
    server.start()
    box.check(f"{what}, the index made anew")
    ok("store-damaged" not in server.log()[since:], f"{what}: nothing seems damaged")


def main():
    chance = random.Random(SEED)
    note(f"SEED={SEED}")
    with Server(config=["keep_expunged = 0", "compaction_percent = 0", "disable_plaintext_auth = no"]) as s:
        box, during = Box(s), 0
        for turn in range(KILLS):
            box.fill(SEGMENT + SEGMENT // 2)
            box.thin(chance)
            during += struck(s, box, turn, chance)
        ok(during > 0, f"{during} of {KILLS} kills came while it compacted")
        box.fill(SEGMENT + SEGMENT // 2)
        box.thin(chance)
        before = segments(s)
        status, out = compact(s)
        eq(status, 0, f"compact: {out.strip()}")
        ok(segments(s) < before, f"{before} segments have become {segments(s)}")
        box.check("compacted")
        rebuilt(s, box, "compacted")
        status, out = compact(s)
        eq((status, out), (0, "0 segments were emptied and given back\n"), "a second time there is nothing to do")
        if not ok(not s.crashes(), "nothing crashed"):
            note("\n".join(s.crashes()))
    # By itself, and compressed on the way.
    with Server(config=["keep_expunged = 0", "compaction_rate = 0", "compress_after = 1s", "disable_plaintext_auth = no"]) as s:
        box = Box(s)
        box.fill(SEGMENT + SEGMENT // 2)
        status, out = compact(s)
        eq(status, 0, f"compact: {out.strip()}")
        figures = s.command_good("status", "--json")
        saved = int(mail.re.search(r'"compressed_away_bytes":\s*(\d+)', figures).group(1))
        ok(saved > SEGMENT // 2, f"{saved} bytes were compressed away")
        box.check("compressed")
        rebuilt(s, box, "compressed")
        if not ok(not s.crashes(), "nothing crashed"):
            note("\n".join(s.crashes()))
    done()


main()
