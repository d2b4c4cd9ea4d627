#!/usr/bin/env python3
"""Nothing is acknowledged before it is on disk: strace shows, for each acknowledgement, the write of the record, the sync that
covers it returning, and only then the reply being written; and each new file's folder synced before the next reply. Enough goes in
that the log begins a second segment: it has its whole header, its name and its folder on disk before the first frame is written into it. Then the
first one is emptied and used again: the change of its name is on disk before its new header is written.

The server's system calls are traced while one client does one thing at a time, so what stands between a command
and its reply belongs to that command.
"""
import os
import re
import sys

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, "tests/lib"))
import mailtools as mail  # noqa: E402
from server import Server, binary  # noqa: E402
from tap import done, note, ok  # noqa: E402

WRITES = ("pwrite64", "pwritev", "pwritev2", "write", "writev")
SENDS = ("write", "writev", "sendto", "sendmsg")
SYNCS = ("fsync", "fdatasync")
SEGMENT = 64 * 1024 * 1024  # docs/STORAGE.md
CALLS = sorted(set(WRITES + SENDS + SYNCS + ("openat", "openat2", "open", "creat", "rename", "renameat", "renameat2", "link", "linkat")))
LINE = re.compile(r"^(\d+) +(?:(\w+)\((.*?)(?:\) += (-?\w+)(.*)| <unfinished \.\.\.>)|<\.\.\. (\w+) resumed>(.*?)\) += (-?\w+)(.*))$")


class Call:
    def __init__(self, name, args, start):
        self.name, self.args, self.start, self.end, self.result, self.rest = name, args, start, None, None, ""

    def path(self):
        """The file of its first descriptor."""
        m = re.match(r"\d+<([^>]*)>", self.args)
        return m.group(1) if m else ""


def parse(path):
    """All calls, by where they begin; positions are line numbers, so they order what happened in all processes."""
    calls, unfinished = [], {}
    with open(path, encoding="utf-8", errors="replace") as f:
        for number, line in enumerate(f):
            m = LINE.match(line.rstrip("\n"))
            if not m:
                continue
            pid, name, args, result, rest, resumed, more, result2, rest2 = m.groups()
            if name:
                call = Call(name, args, number)
                calls.append(call)
                if result is None:
                    unfinished[pid] = call
                    continue
                call.end, call.result, call.rest = number, result, rest
            elif pid in unfinished:
                call = unfinished.pop(pid)
                call.args += more
                call.end, call.result, call.rest = number, result2, rest2
    return calls


def is_log(path, folder):
    """A file of the store that holds records or bodies; its index is derived from them."""
    return path.startswith(folder + "/data/store/") and not path.endswith((".mdb", "lock"))


def replies(calls, port, text):
    """Calls that send this text to a client of that port."""
    return [c for c in calls if c.name in SENDS and f"TCP:[127.0.0.1:{port}->" in c.args and text in c.args]


def check(calls, folder, port, what, text, after):
    """The acknowledgement `text` that follows call `after`: its call, for the next check."""
    found = [c for c in replies(calls, port, text) if c.start > after]
    if not ok(bool(found), f"{what}: the reply is in the trace"):
        return after
    reply = found[0]
    between = [c for c in calls if after < c.start < reply.start]
    writes = [c for c in between if c.name in WRITES and is_log(c.path(), folder)]
    if ok(bool(writes), f"{what}: a record is written before the reply"):
        for path in sorted({w.path() for w in writes}):
            last = max(w.end for w in writes if w.path() == path)
            synced = [c for c in calls if c.name in SYNCS and c.path() == path and c.result == "0" and c.start > last and
                      c.end is not None and c.end < reply.start]
            ok(bool(synced), f"{what}: {os.path.basename(path)} is synced after its last write and before the reply")
    check_new_files(calls, folder, what, after, reply)
    return reply.start


def check_new_files(calls, folder, what, after, reply):
    for c in calls:
        if not after < c.start < reply.start or c.result in (None, "-1"):
            continue
        if c.name == "openat" and "O_CREAT" in c.args:
            m = re.match(r"<([^>]*)>", c.rest) or re.match(r"\d+<([^>]*)>", (c.result or "") + c.rest)
            path = m.group(1) if m else ""
        elif c.name.startswith(("rename", "link")):
            names = re.findall(r'(?:\d+|AT_FDCWD)<([^>]*)>, "([^"]*)"', c.args)
            path = os.path.join(*names[-1]) if names else ""
        else:
            continue
        if not is_log(path, folder):
            continue
        parent = os.path.dirname(path)
        synced = [s for s in calls if s.name in SYNCS and s.path() == parent and s.result == "0" and s.start > c.end and s.end < reply.start]
        ok(bool(synced), f"{what}: the folder of the new {os.path.basename(path)} is synced before the reply")


def converse(s):
    """One thing after the other; returns [(service, what, text of the acknowledgement)]."""
    said = []
    for service in ("smtp", "lmtp"):
        for size in (1000, 100000, 3000000):
            said.append((service, f"{service}, {size} bytes, 354", "354 "))
            mail.send(s, mail.message(f"durable {service}", size=size), s.mail("alice"), service=service)
            said.append((service, f"{service}, {size} bytes", "250 2."))
    client = mail.imaplib.IMAP4("127.0.0.1", s.port("imap"), timeout=120)
    client.login(s.mail("alice"), s.password("alice"))

    def act(what, method, *args):
        status, answer = method(*args)
        if status != "OK":
            raise RuntimeError(f"{what}: {answer}")
        tag = f"{client.tagpre.decode()}{client.tagnum - 1}"
        said.append(("imap", what, f"{tag} OK"))

    act("CREATE", client.create, "Other")
    client.select("INBOX")
    for turn in range(2):
        act("APPEND", client.append, "INBOX", None, None, mail.message("durable append"))
        act("STORE", client.store, "1", "+FLAGS", "(\\Flagged)" if turn == 0 else "(\\Answered)")
        act("COPY", client.copy, "1", "Other")
        act("MOVE", client._simple_command, "MOVE", "2", "Other")  # noqa: SLF001 - imaplib has no method for it
        act("STORE", client.store, "1", "+FLAGS", "(\\Deleted)")
        act("EXPUNGE", client.expunge)
    client.shutdown()
    return said


def fill_segment(s, what="the fill"):
    """Messages just too small for a file of their own, until the log has gone on in another segment."""
    said, size = [], 900000
    data = mail.message("fill", size=size)
    for i in range(SEGMENT // size + 2):
        said.append(("lmtp", f"message {i} of {what}, 354", "354 "))
        mail.send(s, data, s.mail("bob"), service="lmtp")
        said.append(("lmtp", f"message {i} of {what}", "250 2."))
    return said


def free_segment(s):
    """What fills the first segment goes, and so does the segment."""
    client = mail.imap(s, "bob", service="imap")
    client.select("INBOX")
    client.store("1:*", "+FLAGS.SILENT", "(\\Deleted)")
    client.expunge()
    client.shutdown()
    s.command_good("compact")


def renames(calls):
    """[(call, from, to)] of those that went well."""
    found = [(c, re.findall(r'"([^"]*)"', c.args)) for c in calls if c.name.startswith("rename") and c.result == "0"]
    return [(c, names[0], names[1]) for c, names in found if len(names) == 2]


def check_segment(calls, folder, source, made, target):
    """A file `source` that becomes the segment `target` by the call `made`."""
    log = folder + "/data/store/log"
    store = folder + "/data/store/"
    before = [c for c in calls if c.path() == store + source and c.end is not None and c.end < made.start]
    headers = [c.end for c in before if c.name in WRITES]
    ok(bool(headers) and any(c.name in SYNCS and c.result == "0" and c.start > headers[-1] for c in before),
       f"{target}: its header is written and synced under another name")
    synced = [c.end for c in calls if c.name in SYNCS and c.path() == log and c.result == "0" and c.start > made.end]
    frames = [c.start for c in calls if c.name in WRITES and c.path() in (store + target, store + source) and c.start > made.start]
    ok(bool(synced) and bool(frames) and synced[0] < frames[0],
       f"{target}: and its folder is synced before the first frame is written into it")


def check_bodies(s, calls):
    """A body in a file of its own: the file is synced, then named, then the folder synced, and then comes the record."""
    body = s.folder + "/data/store/body"
    named = [c for c in calls if c.name.startswith("link") and c.result == "0" and '"body/new-' in c.args]
    answers = sorted(c.start for service in ("smtp", "lmtp") for c in replies(calls, s.port(service), "250 2."))
    ok(len(named) >= 2, f"{len(named)} bodies lie in files of their own")
    for c in named:
        marker, name = re.findall(r'"([^"]*)"', c.args)
        answer = next((a for a in answers if a > c.end), 0)
        frames = [w.start for w in calls if w.name in WRITES and w.path().endswith(".seg") and c.end < w.start < answer]
        synced = [y.end for y in calls if y.name in SYNCS and y.path() == body and y.result == "0" and y.start > c.end]
        ok(any(y.name in SYNCS and y.result == "0" and y.path().endswith(marker) and y.end < c.start for y in calls),
           f"{name}: synced before it has its name")
        ok(bool(synced) and bool(frames) and synced[0] < frames[-1], f"{name}: its folder is synced before its record is written")


def check_segments(calls, folder):
    log = folder + "/data/store/log"
    moved = renames(calls)
    second = [c for c, source, target in moved if (source, target) == ("log/new", "log/00000002.seg")]
    if ok(len(second) == 1, "the second segment gets its name once"):
        check_segment(calls, folder, "log/new", second[0], "log/00000002.seg")
    freed = [c for c, source, target in moved if (source, target) == ("log/00000001.seg", "log/free-0")]
    used = [(c, target) for c, source, target in moved if source == "log/free-0"]
    if not ok(len(freed) == 1 and bool(used), "the first segment is given back, and used again"):
        return
    writes = [c.start for c in calls if c.name in WRITES and c.path() == log + "/free-0" and freed[0].end < c.start < used[0][0].start]
    synced = [c for c in calls if c.name in SYNCS and c.path() == log and c.result == "0" and c.start > freed[0].end]
    ok(bool(writes) and bool(synced) and synced[0].end < writes[0], "its other name is on the disk before anything is written into it")
    check_segment(calls, folder, "log/free-0", *used[0])


def main():
    trace = os.path.join(os.environ.get("TMPDIR", "/tmp"), f"posthorn-trace-{os.getpid()}")
    program = os.environ.get("POSTHORN_RELEASE") or binary()
    if "MOVE" not in mail.imaplib.Commands:
        mail.imaplib.Commands["MOVE"] = ("SELECTED",)
    s = Server(config=["disable_plaintext_auth = no", "keep_expunged = 0", "compaction_percent = 0"], program=program,
               wrap=["strace", "-f", "--seccomp-bpf", "-yy", "-s", "80", "-o", trace, "-e", "trace=" + ",".join(CALLS)])
    with s:
        said = converse(s) + fill_segment(s)
        free_segment(s)
        said += fill_segment(s, "what comes then")
    calls = parse(trace)
    ok(len(calls) > 100, f"strace saw {len(calls)} calls")
    last = 0
    for service, what, text in said:
        if what.endswith("354"):
            found = [c for c in replies(calls, s.port(service), text) if c.start > last]
            last = found[0].start if found else last
        else:
            last = check(calls, s.folder, s.port(service), what, text, last)
    check_bodies(s, calls)
    check_segments(calls, s.folder)
    if os.environ.get("KEEP_TRACE"):
        note(trace)
    else:
        os.unlink(trace)
    done()


main()
