#!/usr/bin/env python3
"""Random damage to a store that a real server filled: bytes flipped and files cut, in segments, bodies, identity and index.

For each seed: the server, started on what is damaged, serves no wrong byte as right (it may refuse); `posthorn fsck` finds the
damage and names what is lost; `--repair` keeps all the rest, which the server then serves byte for byte; nothing else is gone; a
second fsck finds nothing; UIDs are not given again.

DAMAGE_ROUNDS (6), DAMAGE_SEED (1: the first), DAMAGE_MB (1: how much mail) for longer runs: tests/full/damage.t.
"""
import imaplib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import threading
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, "tests/lib"))
import mailtools as mail  # noqa: E402
from server import Server  # noqa: E402
from tap import done, eq, note, ok  # noqa: E402

ROUNDS = int(os.environ.get("DAMAGE_ROUNDS", "6"))
FIRST = int(os.environ.get("DAMAGE_SEED", "1"))
MEGABYTES = float(os.environ.get("DAMAGE_MB", "1"))
BLOCK = 4096
USERS = ("alice", "bob")
UNNAMED = ("frames", "segment-short", "segment-missing", "torn-tail", "chain", "account-lost", "mailbox-lost")
FAILURES = (OSError, imaplib.IMAP4.error, imaplib.IMAP4.abort, AttributeError, IndexError, TypeError)


class Store:
    """The files of the server's store, and what can be done to them."""

    def __init__(self, server, rng):
        self.folder, self.rng = os.path.join(server.folder, "data/store"), rng
        self.done = []

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def files(self, folder, pattern):
        return sorted(self.path(folder, n) for n in os.listdir(self.path(folder)) if re.fullmatch(pattern, n))

    def flip(self, path, at, count=1):
        size = os.path.getsize(path)
        with open(path, "r+b") as f:
            for i in range(at, min(at + count, size)):
                f.seek(i)
                byte = f.read(1)[0]
                f.seek(i)
                f.write(bytes([byte ^ self.rng.randrange(1, 256)]))

    def used(self, path):
        """Where what was written ends, about: zeros follow."""
        with open(path, "rb") as f:
            return max(BLOCK + 1, len(f.read().rstrip(b"\0")))

    def frames(self, path):
        with open(path, "rb") as f:
            data = f.read()
        return [at for at in range(BLOCK, len(data), BLOCK) if data[at:at + 4] == b"PHFR"]

    def spoil(self):
        kinds = (self.segment, self.segment, self.frame, self.header, self.cut_segment, self.index, self.cut_index, self.remove_index,
                 self.identity, self.body, self.cut_body)
        for _ in range(self.rng.randrange(1, 4)):
            kind = self.rng.choice(kinds)
            kind()
            self.done.append(kind.__name__)

    def segment(self):
        path = self.rng.choice(self.files("log", r".*\.seg"))
        self.flip(path, self.rng.randrange(BLOCK, self.used(path)), self.rng.choice((1, 1, 16, 6000)))

    def frame(self):
        path = self.rng.choice(self.files("log", r".*\.seg"))
        frames = self.frames(path)
        if frames:
            self.flip(path, self.rng.choice(frames) + self.rng.randrange(0, 700))

    def header(self):
        self.flip(self.rng.choice(self.files("log", r".*\.seg")), self.rng.randrange(0, 104))

    def cut_segment(self):
        path = self.rng.choice(self.files("log", r".*\.seg"))
        os.truncate(path, self.rng.randrange(BLOCK + 1, self.used(path)))

    @staticmethod
    def filled(path):
        """What is no hole: the file of the index is longer than what it holds."""
        st = os.stat(path)
        return min(st.st_size, st.st_blocks * 512)

    def index(self):
        for path in self.files("index", r"data\.mdb"):
            for _ in range(self.rng.choice((1, 30))):
                self.flip(path, self.rng.randrange(0, max(1, self.filled(path))))

    def cut_index(self):
        for path in self.files("index", r"data\.mdb"):
            os.truncate(path, self.rng.randrange(0, self.filled(path) + 1))

    def remove_index(self):
        for path in self.files("index", r"data\.mdb"):
            os.unlink(path)

    def identity(self):
        self.flip(self.path(self.rng.choice(("identity", "log/identity"))), self.rng.randrange(0, 64))

    def body(self):
        for path in self.files("body", r"[0-9a-f]{16}")[:1]:
            self.flip(path, self.rng.randrange(0, max(1, self.filled(path))))

    def cut_body(self):
        for path in self.files("body", r"[0-9a-f]{16}")[-1:]:
            os.truncate(path, self.rng.randrange(0, os.path.getsize(path)))


def connect(server, user):
    """A store that finds its index damaged ends, and begins anew: until then a client is told to try again."""
    until = time.monotonic() + 60
    while True:
        try:
            client = mail.imap(server, user)
            status, _ = client.select("INBOX", readonly=True)
            if status == "OK":
                return client
        except FAILURES:
            if time.monotonic() > until:
                raise
        if time.monotonic() > until:
            raise RuntimeError(f"no mailbox of {user} for a minute")
        threading.Event().wait(0.2)


def served(server, user):
    """({uid: what came, None where it was refused}, UIDVALIDITY, UIDNEXT)"""
    client, found = connect(server, user), {}
    while True:
        try:
            uids = [int(u) for u in client.uid("SEARCH", "ALL")[1][0].split()]
            validity = int(client.response("UIDVALIDITY")[1][0])
            after = int(client.response("UIDNEXT")[1][0])
            break
        except FAILURES:
            client = connect(server, user)
    for uid in uids:
        found[uid] = None
        try:
            status, parts = client.uid("FETCH", str(uid), "(UID BODY.PEEK[])")
            if status == "OK" and isinstance(parts[0], tuple):
                found[uid] = parts[0][1]
        except FAILURES:
            client = connect(server, user)
    return found, validity, after


def fill(server):
    """({user: {uid: bytes as they were served}}, {user: all that was there at any time})"""
    rng, sent = random.Random(0), 0
    while sent < MEGABYTES * 1000000:
        size = rng.choice((500, 3000, 20000, 100000)) if MEGABYTES < 50 else rng.choice((20000, 900000))
        mail.send(server, mail.message(f"number {sent}", size=size), [server.mail(u) for u in rng.choice((USERS, USERS[:1], USERS[1:]))])
        sent += size
    for user in USERS:
        mail.send(server, mail.message("large", size=1500000), server.mail(user))
    ever = {user: set(served(server, user)[0].values()) for user in USERS}
    client = mail.imap(server, "alice")
    client.select("INBOX")
    client.uid("STORE", "3,5,7:9", "+FLAGS", "(\\Deleted)")
    client.expunge()
    client.uid("STORE", "2,4,6", "+FLAGS", "(\\Flagged)")
    client.logout()
    return {user: served(server, user)[0] for user in USERS}, ever


def fsck(server, *options):
    status, out = server.command("fsck", "--json", *options)
    try:
        return status, json.loads(out)
    except ValueError:
        raise RuntimeError(f"fsck {options}: exit status {status}: {out.decode(errors='replace')}") from None


def lies(got, ever):
    """What was served and was never so. (Where the record of an expunge is lost, what it expunged is back.)"""
    return [uid for uid, data in got.items() if data is not None and data not in ever]


def is_kept(data, present):
    return data in present or mail.without_added(data) in present


def serve_damaged(server, ever):
    """What it says on the damaged store: the truth, or nothing."""
    if not server.try_start():
        return []
    bad = []
    for user in USERS:
        try:
            bad += lies(served(server, user)[0], ever[user])
        except RuntimeError as e:
            note(str(e)[:300])
    server.stop()
    return bad


def round_of(server, seed, base, originals, ever, before):
    rng = random.Random(seed)
    store = Store(server, rng)
    shutil.rmtree(store.folder)
    subprocess.run(["cp", "-a", "--sparse=always", base, store.folder], check=True)
    store.spoil()
    name = f"seed {seed} ({', '.join(store.done)})"
    damaged = store.folder + ".damaged"
    subprocess.run(["cp", "-a", "--sparse=always", store.folder, damaged], check=True)
    eq(serve_damaged(server, ever), [], f"{name}: no wrong byte is served")
    shutil.rmtree(store.folder)
    os.rename(damaged, store.folder)

    status, looks = fsck(server)
    ok(status in (0, 5), f"{name}: fsck looks at all of it: {status}")
    status, looks = fsck(server, "--repair")
    findings = [f for look in looks for f in look["findings"]]
    if not ok(status in (0, 6), f"{name}: fsck --repair makes it whole: {status}"):
        note("\n".join(json.dumps(f) for look in looks for f in look["findings"] if f["level"] != "note")[:4000])
    if status == 6:
        ok(os.path.isdir(store.path(looks[0]["aside"])), f"{name}: what was damaged lies aside")
    eq(fsck(server)[0], 0, f"{name}: nothing is damaged any more")

    server.start()
    unnamed = any(f["what"] in UNNAMED for f in findings)
    for user in USERS:
        if unnamed:
            mail.send(server, mail.message("again"), server.mail(user))  # who lost the account's record has none until then
        got, validity, after = served(server, user)
        present = {mail.without_added(d) for d in got.values() if d is not None}
        texts = {mail.without_added(d) for d in ever[user]}
        wrong = [u for u, d in got.items() if d is None or (mail.without_added(d) not in texts and b"Subject: again\r\n" not in d)]
        eq(wrong, [], f"{name}: {user}: what is left is served, byte for byte")
        named = {f["uid"] for f in findings if f.get("address") == server.mail(user) and f["level"] == "loss" and "uid" in f}
        missing = {u for u, d in originals[user].items() if not is_kept(d, present)}
        if not ok(missing <= named or unnamed, f"{name}: {user}: {len(missing)} messages are gone, all of them named"):
            note(f"{sorted(missing - named)} of {sorted(missing)}; named {sorted(named)}")
            note(json.dumps(findings)[:3000])
        ok(validity != before[user][0] or after >= before[user][1] or not missing, f"{name}: {user}: no UID is given again")
    mail.send(server, mail.message("after the repair"), [server.mail(u) for u in USERS])
    server.stop()
    eq(fsck(server)[0], 0, f"{name}: and nothing is, with new mail in it")


def main():
    s = Server(accounts=USERS)
    with s:
        originals, ever = fill(s)
        s.stop()
        s.start()  # brings the index near the end
        before = {user: served(s, user)[1:] for user in USERS}
        status, looks = fsck(s, "--online")
        eq((status, looks[0]["losses"], looks[0]["damages"]), (0, 0, 0), "fsck --online of a sound store, while it runs")
        status, out = s.command("fsck")
        ok(status == 1 and b"the server runs" in out, "fsck of a running server is refused")
        s.stop()
        status, looks = fsck(s)
        messages = sum(len(m) for m in originals.values())
        eq((status, looks[0]["messages"], looks[0]["index_matches"], looks[0]["findings"]), (0, messages, True, []),
           "fsck of a sound store: all messages, an index that equals its rebuild, nothing found")
        base = os.path.join(s.folder, "base")
        os.rename(os.path.join(s.folder, "data/store"), base)
        shutil.copytree(base, os.path.join(s.folder, "data/store"))
        for seed in range(FIRST, FIRST + ROUNDS):
            round_of(s, seed, base, originals, ever, before)
    done()


main()
