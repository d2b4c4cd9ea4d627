#!/usr/bin/env python3
"""The Nth system call of a role fails, while mail is delivered, submitted, read and changed, and sent on. Every time: success or a clean
error, never a hang, and what was answered is true: what was acknowledged is there once and whole, what was refused is not there, also
after kill -9 of everything, and after the index was made again from the log.

Each case is a scenario, a role, and an error of the calls that can have it. First the scenario passes untouched, and its calls are
counted; then N goes through them, until it passes untouched again. FAULTS_EACH: how many N of each case, evenly spread from a place
that SEED chooses (0: every N, and sockets that fail too, as in ./test --full). CASES: only those whose name has this in it.
"""
import hashlib
import os
import random
import re
import smtplib
import socket
import sys
import threading
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, "tests/lib"))
import mailtools as mail  # noqa: E402
from faults import DESCRIPTORS, NAMES, READS, RECEIVES, SENDS, SYNCS, WAITS, WRITES, Faults  # noqa: E402
from mailmodel import Model, select  # noqa: E402
from server import Server  # noqa: E402
from sink import Sink  # noqa: E402
from tap import done, eq, note, ok  # noqa: E402

EACH = int(os.environ.get("FAULTS_EACH", "2"))
SEED = int(os.environ.get("SEED", str(random.randrange(10 ** 6))))
CASES = os.environ.get("CASES", "")
PATIENCE = 150  # seconds that a client waits for an answer: more than SMTP_COMMIT_SECONDS
RECOVER = 60  # and the server may take to be as before
EVERY = NAMES | READS | WRITES | SYNCS | DESCRIPTORS | RECEIVES | SENDS | WAITS
FAULTS = [("EIO", NAMES | READS | WRITES | SYNCS), ("ENOSPC", NAMES | WRITES | SYNCS), ("LOSE", SYNCS), ("EMFILE", DESCRIPTORS),
          ("EINTR", EVERY), ("SHORT", READS | WRITES | RECEIVES | SENDS)]
# A socket fails: a role ends and begins anew, later and later when it ends often (kill.t is about that).
SOCKETS = ("EIO", RECEIVES | SENDS | DESCRIPTORS)


UNKNOWN = b"Cannot take the message now"


class Hang(Exception):
    pass


class Mailbox:
    """What was delivered: {subject: hash}, and what was answered."""

    def __init__(self, server, user):
        self.server, self.user, self.sent, self.answers = server, user, {}, {}

    def expect(self, key, data, answer):
        """`answer`: True, acknowledged; False, refused; None, nobody said."""
        self.sent[key], self.answers[key] = hashlib.sha256(data).hexdigest(), answer

    def lies(self):
        found = {}
        for data in mail.fetch_all(self.server, self.user).values():
            data = mail.without_added(data)
            key = re.search(rb"^Subject: (\S+)\r$", data, re.M)
            found.setdefault(key.group(1).decode() if key else "?", []).append(hashlib.sha256(data).hexdigest())
        wrong = [f"{k} was never sent" for k in found if k not in self.sent]
        for key, answer in self.answers.items():
            copies = found.get(key, [])
            if len(copies) > 1 or (answer and not copies) or (answer is False and copies):
                wrong.append(f"{key}: {len(copies)} copies after the answer {answer}")
            if any(c != self.sent[key] for c in copies):
                wrong.append(f"{key} was changed")
            self.answers[key] = bool(copies)
        return wrong

    def empty(self):
        client = mail.imap(self.server, self.user)
        client.select("INBOX")
        client.store("1:*", "+FLAGS.SILENT", "(\\Deleted)")
        status = client.expunge()[0]
        client.shutdown()
        if status == "OK":
            self.answers, self.sent = {}, {}


def answer_of(act, store_may_go):
    """True, False, None; a client that waits in vain is a hang. When the store itself may go, or the way to it,
    UNKNOWN is said of what it had been asked: that may have happened (OUTCOME_UNKNOWN in the trace)."""
    try:
        act()
        return True
    except (socket.timeout, TimeoutError) as e:
        raise Hang(str(e)) from e
    except smtplib.SMTPServerDisconnected as e:
        if "timed out" in str(e):
            raise Hang(str(e)) from e
        return None
    except smtplib.SMTPRecipientsRefused as e:
        return None if any(code < 400 for code, _ in e.recipients.values()) else False
    except smtplib.SMTPResponseException as e:
        return None if store_may_go and UNKNOWN in e.smtp_error else False
    except OSError:
        return None


class Lmtp:
    """Three sizes: inline, by a descriptor, and with a file of its own."""
    name, roles, sizes = "lmtp", ("front", "auth", "filter", "store", "checkpoint"), (2000, 100000, 1200000)
    store_may_go = False

    def __init__(self, server):
        self.server, self.box, self.count = server, Mailbox(server, "alice"), 0
        self.bodies = [mail.message("SUBJECT", size=size) for size in self.sizes]

    def client(self):
        return smtplib.LMTP("127.0.0.1", self.server.port("lmtp"))

    def run(self):
        socket.setdefaulttimeout(PATIENCE)
        for body in self.bodies:
            self.count += 1
            key = f"{self.name}-{self.count}"
            data = body.replace(b"SUBJECT", key.encode(), 1)
            self.box.expect(key, data, answer_of(lambda d=data: self.send(d), self.store_may_go))

    def send(self, data):
        with self.client() as client:
            client.sendmail("me@example.org", [self.server.mail(self.box.user)], data)

    def lies(self):
        wrong = self.box.lies()
        if len(self.box.sent) > 60:
            self.box.empty()
        return wrong


class Submission(Lmtp):
    """TLS, AUTH, and a message to an account here."""
    name, roles, sizes = "submission", ("front", "keys", "auth", "lookup", "filter", "store"), (2000,)

    def __init__(self, server):
        super().__init__(server)
        self.box.user, self.bodies = "dave", [mail.message("SUBJECT", size=2000, sender=server.mail("bob"))]

    def send(self, data):
        with smtplib.SMTP_SSL("127.0.0.1", self.server.port("submissions"), context=mail.tls_context(), timeout=PATIENCE) as client:
            client.login(self.server.mail("bob"), self.server.password("bob"))
            client.sendmail(self.server.mail("bob"), [self.server.mail(self.box.user)], data)


class Imap:
    """Every command that changes a mailbox, each acknowledged, until one is not."""
    name, roles = "imap", ("front", "auth", "session", "store")
    acts = (("APPEND", "INBOX", None, "one"), ("APPEND", "INBOX", None, "two"), ("STORE", "INBOX", 0, ("+", "\\Flagged")),
            ("STORE", "INBOX", 0, ("+", "work")), ("COPY", "INBOX", 0, None), ("MOVE", "INBOX", 1, None),
            ("STORE", "INBOX", 0, ("-", "\\Flagged")), ("STORE", "INBOX", 0, ("+", "\\Deleted")), ("EXPUNGE", "INBOX", None, None))

    def __init__(self, server):
        self.server, self.model = server, Model()
        client = mail.imap(server, "carol")
        client.create("Other")
        client.logout()

    def client(self):
        client = mail.imaplib.IMAP4("127.0.0.1", self.server.port("imap"), timeout=PATIENCE)
        client.login(self.server.mail("carol"), self.server.password("carol"))
        return client

    def run(self):
        client = None
        try:
            client = self.client()
            select(client, "INBOX")
            for kind, box, at, what in self.acts:
                uids = sorted(self.model.boxes[box])
                if not self.model.do(client, (kind, box, uids[at] if at is not None else None, what)):
                    break
                self.read(client)
        except (socket.timeout, TimeoutError) as e:
            raise Hang(str(e)) from e
        except (OSError, mail.imaplib.IMAP4.error):
            pass  # the connection ended, or the login was refused
        finally:
            if client:
                client.shutdown()

    def read(self, client):
        """What a session reads is right, or it says that it cannot."""
        status, parts = client.fetch("1:*", "(UID BODY.PEEK[])")
        for part in parts if status == "OK" else []:
            if isinstance(part, tuple) and part[1] not in self.model.sent.values():
                self.model.wrong.append(f"wrong bytes: {part[0]!r} {part[1][:200]!r}")

    def lies(self):
        client = self.client()
        self.model.look(client)
        wrong, self.model.wrong = self.model.wrong, []
        for box in ("INBOX", "Other"):
            select(client, box)
            if self.model.boxes[box]:
                for uid in list(self.model.boxes[box]):
                    self.model.do(client, ("STORE", box, uid, ("+", "\\Deleted")))
                self.model.do(client, ("EXPUNGE", box, None, None))
        client.shutdown()
        return wrong


class Relay:
    """A message for a remote host, through the queue."""
    name, roles, store_may_go = "relay", ("store", "queue", "out", "dns"), False

    def __init__(self, server, sink):
        self.server, self.sink, self.count, self.owed = server, sink, 0, {}

    def run(self):
        self.count += 1
        key = f"relay-{self.count}"
        data = mail.message(key, size=60000, to="a@sink.test")

        def send():
            with smtplib.SMTP("127.0.0.1", self.server.port("smtp"), timeout=PATIENCE) as client:
                client.sendmail("me@example.org", ["a@sink.test"], data)

        self.owed[key] = (answer_of(send, self.store_may_go), data)
        if self.owed[key][0]:
            self.wait(key)
            self.settle()

    def settle(self):
        """Until the outcome is recorded; a client of the queue can only look."""
        until = time.monotonic() + RECOVER
        while (left := self.server.command("queue", "list"))[0] or b"empty" not in left[1]:
            if time.monotonic() > until:
                raise Hang(f"the queue still has {left}")
            threading.Event().wait(0.1)

    def copies(self, key):
        with self.sink.changed:
            return [m.data for m in self.sink.messages if f"Subject: {key}\r".encode() in m.data]

    def wait(self, key):
        with self.sink.changed:
            if not self.sink.changed.wait_for(lambda: self.copies(key), RECOVER):
                raise Hang(f"{key} does not arrive")

    def lies(self):
        """The remote server's answer may get lost with its connection, and the message be sent again: twice at most."""
        wrong = []
        for key, (answer, data) in self.owed.items():
            if answer:
                self.wait(key)
            copies = self.copies(key)
            if any(mail.without_added(c) != data for c in copies):
                wrong.append(f"{key} was changed")
            if len(copies) > 2 or (answer is False and copies):
                wrong.append(f"{key}: {len(copies)} copies after the answer {answer}")
        self.settle()
        self.owed = {}
        return wrong


def patiently(act):
    until = time.monotonic() + RECOVER
    while True:
        try:
            return act()
        except (OSError, RuntimeError, mail.imaplib.IMAP4.error, smtplib.SMTPException) as e:
            if time.monotonic() > until:
                raise Hang(f"not as before: {e!r}") from e
            threading.Event().wait(0.05)


def numbers(total, seed):
    """Which calls fail: all and one more, or EACH of them, evenly spread."""
    if EACH == 0:
        return range(1, 10 ** 6)
    step = max(1, total // EACH)
    return sorted(set(range(1 + seed % step, total + 1, step)))[:EACH]


class Case:
    def __init__(self, server, faults, scenario, role, fault):
        self.server, self.faults, self.scenario, self.role, (self.error, self.kinds) = server, faults, scenario, role, fault
        self.tried, self.wrong, self.slowest = 0, [], 0.0
        self.name = f"{scenario.name}, {role}, {self.error}" + (" of sockets" if fault == SOCKETS else "")
        self.crash = "Sanitizer|runtime error:|panic:" + ("" if fault == SOCKETS else "|role-cut-off|role-ended")

    def once(self, first):
        """Whether the call came at all."""
        began, since = time.monotonic(), len(self.server.log())
        self.faults.arm(self.role, self.kinds, self.error, first)
        problems, self.scenario.store_may_go = [], self.kinds == SOCKETS[1]
        try:
            self.scenario.run()
        except Hang as e:
            problems.append(f"hangs: {e}")
        calls, failed, call = self.faults.disarm()
        try:
            problems += patiently(self.scenario.lies)
        except Hang as e:
            problems.append(f"stays broken: {e}")
        log = self.server.log()[since:]
        problems += [line for line in log.split("\n") if re.search(self.crash, line)]
        took = time.monotonic() - began
        self.slowest = max(self.slowest, took)
        if problems:
            self.wrong.append(f"call {first} ({call}): " + "; ".join(problems)[:1500])
            note(f"{self.name}: call {first} ({call}): " + "; ".join(problems)[:1500] + "\nthe log: " + log[-3000:])
        return calls, failed

    def all(self):
        calls, _ = self.once(10 ** 9)
        for n in numbers(calls, SEED):
            _, failed = self.once(n)
            self.tried += failed
            if (not failed and n > calls) or len(self.wrong) > 2:  # runs differ by a few calls
                break
        if self.tried or self.wrong:
            ok(not self.wrong, f"{self.name}: {self.tried} of {calls} calls failed, the slowest took {self.slowest:.1f} s")


def survives(server, scenarios, what):
    eq([f"{x.name}: {w}" for x in scenarios for w in patiently(x.lies)], [], f"{what}: everything is as it was answered")


def main():
    note(f"SEED={SEED}")
    faults = Faults()
    with Sink() as sink, Server(accounts=["alice", "bob", "carol", "dave"], config=[
            "mynetworks = 127.0.0.0/8", "disable_plaintext_auth = no", "login_cache = no", "smtpd_client_connection_count_limit = 1000",
            "minimal_backoff_time = 1s", "maximal_backoff_time = 1s", "delay_warning_time = 0",
            f"transport_maps = inline:{{ {{sink.test = smtp:[127.0.0.1]:{sink.port}}} }}"]) as s:
        scenarios = [Lmtp(s), Submission(s), Imap(s), Relay(s, sink)]
        for scenario in scenarios:
            for role in scenario.roles:
                for fault in FAULTS if EACH else FAULTS + [SOCKETS]:
                    case = Case(s, faults, scenario, role, fault)
                    if CASES in case.name:
                        case.all()
        for scenario in scenarios:
            scenario.store_may_go = False
            scenario.run()
        s.kill()
        s.start()
        survives(s, scenarios, "after kill -9")
        s.stop()
        os.unlink(os.path.join(s.folder, "data/store/index/data.mdb"))
        s.start()
        survives(s, scenarios, "with the index made again from the log")
    faults.close()
    done()


main()
