#!/usr/bin/env python3
"""The same IMAP dialogue with Posthorn and with Debian's Dovecot; the answers must mean the same.

Each step is sent to both, by one of two sessions on the same account (`2:` in front: the second one). Compared are the result, its
response code, and the untagged answers: FETCH by item, LIST and FLAGS without regard to order, free text not at all. `>` begins what a
line's literal holds. Where the two may differ, KNOWN says why; an entry that is no difference any more fails as well.
"""
import email.utils
import importlib.machinery
import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(TESTS, "lib"))
from server import Server  # noqa: E402
from tap import done, eq, note, ok  # noqa: E402

_loader = importlib.machinery.SourceFileLoader("mime_dovecot", os.path.join(TESTS, "vectors/mime-dovecot"))
mime_dovecot = importlib.util.module_from_spec(importlib.util.spec_from_loader("mime_dovecot", _loader))
_loader.exec_module(mime_dovecot)

NAMESPACE = """
namespace inbox {
  inbox = yes
  separator = /
""" + "".join(f"  mailbox {n} {{\n    auto = subscribe\n    special_use = \\{n}\n  }}\n" for n in
             ("Drafts", "Sent", "Junk", "Trash", "Archive")) + "}\n"

# Why they may differ -> the steps that do; "#2" is the second time that the step stands below.
REASONS = {
    "RFC 3501 9 allows no more arguments; Dovecot ignores them": [
        'SELECT "INBOX" extra', "3:IDLE x", "3:NOOP x", "3:CAPABILITY x"],
    "LIST-EXTENDED (RFC 5258) is not announced: no selection, no lists of patterns": [
        'LIST (SPECIAL-USE) "" *', 'LIST "" (INBOX Sent)'],
    "we tell the special use and the children whether asked or not (RFC 6154 2, RFC 3348 3)": [
        'LIST "" * RETURN (SPECIAL-USE)', 'LIST "" * RETURN (CHILDREN)', 'LIST "" % RETURN (STATUS (MESSAGES UNSEEN))'],
    "RFC 3501 6.3.3: we create superior names as mailboxes, and one with a separator behind it too; Dovecot as names alone, which go "
    "with their children": [
        'LIST "" * #2', 'LIST "" % #2', 'LIST "" a/%', 'LIST "" a/*', "LIST a/ %", 'LIST "" %/%', 'LIST "" a/b%', 'LIST "" * #3',
        "DELETE z/b", 'LIST "" * #4', "DELETE q/r", 'LIST "" q*', 'LIST "" q* #2', '3:LIST "" %'],
    "a subscription follows its mailbox when it is renamed; Dovecot keeps the old name": ['LSUB "" * #3'],
    "Dovecot tells that STATUS of the selected mailbox is a client's mistake": [
        "STATUS INBOX (MESSAGES RECENT UIDNEXT UIDVALIDITY UNSEEN)", "STATUS INBOX (MESSAGES UIDNEXT UNSEEN)"],
    "we tell a new keyword before it is first used in an answer, Dovecot at once": [
        'APPEND INBOX (\\Flagged work \\Draft) "08-Feb-1994 01:00:00 +0000" @SECOND'],
    "what changes nothing because the mailbox is read-only is NO with us; Dovecot says OK and ignores it": [
        "STORE 1 +FLAGS (\\Answered)", "EXPUNGE #2"],
    "a part 0 does not exist in the grammar": ["FETCH 1 BODY[0]"],
    "RFC 3501 6.4.6: STORE answers with the flags, also when it changed none": ["STORE 1 +FLAGS ()"],
    "Dovecot makes a keyword that is only searched for": ["SEARCH KEYWORD nope"],
    "RFC 3501 9: a number has 32 bits": ["SEARCH LARGER 4294967296"],
    "RFC 3501 6.4.4: the day is that of INTERNALDATE as given, whatever its zone; Dovecot's is that of its own zone": [
        "SEARCH ON 8-Feb-1994", "SEARCH ON 08-Feb-1994", "SEARCH SINCE 8-Feb-1994", 'SEARCH SINCE "8-Feb-1994"'],
    "a message without Date was sent on no day; with Dovecot in 1970": ["SEARCH SENTBEFORE 8-Feb-1994"],
    "there is no such day": ["SEARCH ON 31-Feb-1994"],
    "another session expunged the message; RFC 2180 4.1 leaves what is said of it until the EXPUNGE can be told": [
        "2:FETCH 1 (UID)", "2:STORE 1 +FLAGS (\\Flagged)", "2:SEARCH ALL"],
    "RFC 5161 3.2: ENABLED is always answered, and takes at least one name": ["3:ENABLE FROB", "3:ENABLE"],
}
KNOWN = {step: reason for reason, steps in REASONS.items() for step in steps}

FIRST = ("Date: Mon, 7 Feb 1994 21:52:25 -0800\r\nFrom: Fred Foobar <foobar@Blurdybloop.example>\r\nSubject: afternoon meeting\r\n"
         "To: mooch@owatagu.example, \"Q. U\" <q@x.example>\r\nCc: cc@x.example\r\nMessage-Id: <B27397-0100000@Blurdybloop.example>\r\n"
         "Content-Type: TEXT/PLAIN; CHARSET=US-ASCII\r\n\r\nHello Joe, do you think we can meet at 3:30 tomorrow?\r\n")
SECOND = ("Date: Tue, 8 Feb 1994 01:00:00 +0000\r\nFrom: =?utf-8?q?J=C3=BCrgen?= <j@x.example>\r\nBcc: b@x.example\r\n"
          "Subject: =?iso-8859-1?q?Gr=FC=DFe?=\r\nTo: a@x.example\r\nX-Empty:\r\nMIME-Version: 1.0\r\n"
          "Content-Type: multipart/mixed; boundary=b\r\n\r\npre\r\n--b\r\nContent-Type: text/plain; charset=utf-8\r\n"
          "Content-Transfer-Encoding: quoted-printable\r\n\r\nStra=C3=9Fe\r\n--b\r\nContent-Type: message/rfc822\r\n\r\n"
          "Subject: inner\r\nFrom: i@x.example\r\n\r\ninner text\r\n--b\r\nContent-Type: application/octet-stream\r\n"
          "Content-Transfer-Encoding: base64\r\n\r\nAAAA\r\n--b--\r\n")
THIRD = "From: <third@x.example>\r\nSubject: third\r\n\r\n" + "line of text\r\n" * 400
SHORT = "Subject: short\r\n\r\nx\r\n"
RAW = "Subject: raw\nX: y\n\na\0b\r\nlast"

STEPS = r"""
SUBSCRIBE INBOX
NOOP
CHECK
CLOSE
UNSELECT
EXPUNGE
FETCH 1 FLAGS
SEARCH ALL
STORE 1 FLAGS ()
COPY 1 INBOX
MOVE 1 INBOX
UID FETCH 1 FLAGS
LOGIN a b
AUTHENTICATE PLAIN
STARTTLS
FROBNICATE
SELECT
SELECT nowhere
EXAMINE nowhere
SELECT "INBOX" extra
SELECT {5+}>INBOX
LIST "" ""
LIST "" *
LIST "" %
LIST "" INBOX
LIST "" inbox
LIST "" inb*
LIST "" ZZZ*
LIST Dr %
LIST "" Dr%
LIST
LIST ""
LIST (SPECIAL-USE) "" *
LIST "" * RETURN (SPECIAL-USE)
LIST "" * RETURN (CHILDREN)
LIST "" (INBOX Sent)
LIST "" % RETURN (STATUS (MESSAGES UNSEEN))
LSUB "" *
LSUB "" %
CREATE a
CREATE a
CREATE INBOX
CREATE inbox
CREATE a/b/c
CREATE d/
CREATE ""
CREATE x//y
CREATE /x
CREATE "with space"
CREATE "Entw&APw-rfe"
CREATE "bad&utf"
CREATE "per%cent"
CREATE "star*"
CREATE (x)
LIST "" *
LIST "" %
LIST "" a/%
LIST "" a/*
LIST a/ %
LIST "" %/%
LIST "" *c
LIST "" a/b%
SUBSCRIBE a
SUBSCRIBE a/b/c
SUBSCRIBE nowhere
UNSUBSCRIBE nowhere
UNSUBSCRIBE never
LSUB "" *
LSUB "" a/%
LSUB a %
RENAME a z
RENAME nowhere n2
RENAME z INBOX
RENAME z z
RENAME z z/b
RENAME z/b/c q/r/s
RENAME d "with space"
LIST "" *
LSUB "" *
DELETE z
DELETE z/b
DELETE nowhere
DELETE INBOX
LIST "" *
DELETE q/r
LIST "" q*
DELETE q/r/s
LIST "" q*
STATUS INBOX (MESSAGES RECENT UIDNEXT UIDVALIDITY UNSEEN)
STATUS nowhere (MESSAGES)
STATUS INBOX (FROB)
STATUS INBOX ()
STATUS INBOX MESSAGES
APPEND nowhere {21+}>@SHORT
APPEND INBOX
APPEND INBOX (\Seen) "07-Feb-1994 21:52:25 -0800" @FIRST
APPEND INBOX (\Flagged work \Draft) "08-Feb-1994 01:00:00 +0000" @SECOND
APPEND INBOX "10-Feb-1994 23:59:59 +0200" @THIRD
APPEND INBOX (\Recent) @SHORT
STATUS INBOX (MESSAGES UIDNEXT UNSEEN)
EXAMINE INBOX
STORE 1 +FLAGS (\Answered)
EXPUNGE
FETCH 2 BODY[TEXT]
FETCH 2 FLAGS
CLOSE
SELECT INBOX
FETCH 1:* (FLAGS UID INTERNALDATE RFC822.SIZE)
FETCH 1:* ALL
FETCH 1:* FAST
FETCH 1:3 FULL
FETCH 1:3 (BODY BODYSTRUCTURE)
FETCH 2 (BODY.PEEK[] BODY.PEEK[1] BODY.PEEK[2] BODY.PEEK[3] BODY.PEEK[4])
FETCH 2 (BODY.PEEK[HEADER] BODY.PEEK[TEXT] BODY.PEEK[1.MIME] BODY.PEEK[2.HEADER] BODY.PEEK[2.TEXT] BODY.PEEK[2.1])
FETCH 2 (BODY.PEEK[HEADER.FIELDS (Subject FROM x-empty nope)] BODY.PEEK[2.HEADER.FIELDS.NOT (From)])
FETCH 2 (BODY.PEEK[HEADER.FIELDS.NOT (Subject From To Date)])
FETCH 3 BODY.PEEK[]<0.10>
FETCH 3 BODY.PEEK[]<5000.10>
FETCH 3 BODY.PEEK[]<99999.10>
FETCH 3 BODY.PEEK[TEXT]<13.26>
FETCH 3 BODY.PEEK[]<0.0>
FETCH 3 BODY.PEEK[]<0>
FETCH 3 BODY.PEEK[]<4294967295.1>
FETCH 1 BODY[TEXT]
FETCH 3 BODY[TEXT]<0.4>
FETCH 3 FLAGS
FETCH 1 (RFC822.HEADER)
FETCH 1 (RFC822.TEXT)
FETCH 1 RFC822
FETCH 1 (FLAGS FLAGS UID UID)
FETCH 1 ()
FETCH 1 FROB
FETCH 1 (ALL)
FETCH 1 (FLAGS ALL)
FETCH 1 BODY[FROB]
FETCH 1 BODY[MIME]
FETCH 1 BODY[0]
FETCH 1 BODY[1.]
FETCH 1 BODY[
FETCH 1 BODY[HEADER.FIELDS]
FETCH 1 BODY[HEADER.FIELDS ()]
FETCH 0 FLAGS
FETCH 99 FLAGS
FETCH 1:99 FLAGS
FETCH * UID
FETCH *:1 UID
FETCH 2:1 UID
FETCH 1,1,2 UID
FETCH 1,,2 UID
FETCH x FLAGS
FETCH 4294967296 FLAGS
UID FETCH 99 FLAGS
UID FETCH 99:* FLAGS
UID FETCH 1:2 (UID FLAGS)
UID FETCH 1 UID
UID FETCH 0 UID
UID FROB 1
UID
STORE 1 FLAGS (\Seen \Flagged)
STORE 1 FLAGS.SILENT (\Seen)
STORE 1 +FLAGS \Answered
STORE 1 +FLAGS \Answered \Draft
STORE 1 -FLAGS (\Answered \Draft)
STORE 1 +FLAGS ()
STORE 1 +FLAGS (\Recent)
STORE 1 +FLAGS (\Bogus)
STORE 1 +FLAGS (key1 KEY2)
STORE 1 -FLAGS (KEY1)
STORE 1 FROB (\Seen)
STORE 99 +FLAGS (\Seen)
STORE 1:99 +FLAGS (\Seen)
UID STORE 99 +FLAGS (\Seen)
UID STORE 2 +FLAGS.SILENT (\Answered)
FETCH 1:* FLAGS
SEARCH
SEARCH ALL
SEARCH ANSWERED
SEARCH UNANSWERED
SEARCH DELETED
SEARCH UNDELETED
SEARCH DRAFT
SEARCH UNDRAFT
SEARCH FLAGGED
SEARCH UNFLAGGED
SEARCH SEEN
SEARCH UNSEEN
SEARCH KEYWORD work
SEARCH KEYWORD nope
SEARCH UNKEYWORD work
SEARCH KEYWORD key2
SEARCH 1
SEARCH 1:2
SEARCH 2:*
SEARCH 99
SEARCH UID 1:2
SEARCH UID 99
SEARCH UID 99:*
SEARCH FROM foobar
SEARCH FROM Fred
SEARCH FROM "Fred Foobar"
SEARCH TO mooch
SEARCH CC cc@x
SEARCH BCC b@x
SEARCH SUBJECT meeting
SEARCH SUBJECT MEETING
SEARCH SUBJECT ""
SEARCH SUBJECT "afternoon  meeting"
SEARCH HEADER Message-Id B27397
SEARCH HEADER X-Empty ""
SEARCH HEADER X-Nope ""
SEARCH HEADER Subject third
SEARCH HEADER From ""
SEARCH TEXT Joe
SEARCH TEXT foobar
SEARCH TEXT "inner text"
SEARCH BODY Joe
SEARCH BODY foobar
SEARCH BODY inner
SEARCH BODY ""
SEARCH BODY pre
SEARCH BODY AAAA
SEARCH BODY "text line of"
SEARCH LARGER 1000
SEARCH SMALLER 1000
SEARCH LARGER 4294967296
SEARCH BEFORE 9-Feb-1994
SEARCH ON 8-Feb-1994
SEARCH ON 08-Feb-1994
SEARCH SINCE 8-Feb-1994
SEARCH SINCE "8-Feb-1994"
SEARCH SENTBEFORE 8-Feb-1994
SEARCH SENTON 7-Feb-1994
SEARCH SENTON 8-Feb-1994
SEARCH SENTSINCE 8-Feb-1994
SEARCH ON 31-Feb-1994
SEARCH ON 8-Foo-1994
SEARCH NOT SEEN
SEARCH NOT NOT SEEN
SEARCH OR SEEN FLAGGED
SEARCH OR SEEN
SEARCH (SEEN FLAGGED)
SEARCH (SEEN) (FLAGGED)
SEARCH OR (SEEN 1) (UNSEEN 2:3)
SEARCH ()
SEARCH FROB
SEARCH SUBJECT
SEARCH CHARSET UTF-8 SUBJECT {6+}>Grüße
SEARCH CHARSET UTF-8 SUBJECT {8+}>GRÜSSE
SEARCH CHARSET utf-8 BODY {7+}>straße
SEARCH CHARSET UTF-8 FROM {7+}>jürgen
SEARCH CHARSET US-ASCII SUBJECT meeting
SEARCH CHARSET X-NOSUCH SUBJECT x
SEARCH CHARSET X-NOSUCH ALL
SEARCH CHARSET
UID SEARCH ALL
UID SEARCH 2:3
UID SEARCH UID 2 SEEN
COPY 1 nowhere
COPY 1 a
COPY 1:2 INBOX
COPY 99 INBOX
COPY 1:99 INBOX
UID COPY 99 INBOX
UID COPY 1:* "with space"
COPY 1
MOVE 1 nowhere
MOVE 99 INBOX
UID MOVE 99 INBOX
2:SELECT INBOX
2:NOOP
MOVE 5 "with space"
2:NOOP
STORE 1 +FLAGS (\Deleted)
2:NOOP
2:FETCH 1 FLAGS
UID EXPUNGE 2
UID EXPUNGE 1
2:FETCH 1 (UID)
2:STORE 1 +FLAGS (\Flagged)
2:SEARCH ALL
2:NOOP
2:FETCH 1 (UID)
NOOP
STORE 1:* +FLAGS.SILENT (\Deleted)
2:STORE 1 -FLAGS (\Deleted)
EXPUNGE
NOOP
2:NOOP
2:UNSELECT
2:APPEND INBOX (\Seen) @SHORT
NOOP
APPEND INBOX @SHORT
STORE 1 +FLAGS (\Deleted)
CLOSE
SELECT INBOX
STORE 1 +FLAGS (\Deleted)
UNSELECT
SELECT INBOX
FETCH 1:* (FLAGS)
MOVE 1 INBOX
FETCH 1:* (UID)
APPEND INBOX @RAW
FETCH * (RFC822.SIZE BODY.PEEK[] BODY.PEEK[TEXT] BODYSTRUCTURE)
FETCH  *  (UID  FLAGS )
SEARCH  ALL
STORE 1 +FLAGS (\Seen  \Draft )
SELECT nowhere
FETCH 1 UID
SELECT "with space"
2:DELETE "with space"
2:CREATE "with space"
2:STATUS "with space" (MESSAGES UIDNEXT)
""" .strip("\n").split("\n")

THIRD_SESSION = r"""
RENAME INBOX old
STATUS INBOX (MESSAGES)
STATUS old (MESSAGES)
LIST "" %
NAMESPACE
ENABLE FROB
ENABLE
ID NIL
ID ("name" "test")
ID (
IDLE x
NOOP x
CAPABILITY x
LOGOUT
""".strip("\n").split("\n")


class Side:
    """Sessions with one server."""

    def __init__(self):
        self.sessions, self.tag = {}, 0

    def session(self, number):
        if number not in self.sessions:
            self.sessions[number] = self.open()
        return self.sessions[number]

    def do(self, step):
        """(tagged answer, [untagged answers]) as bytes, or what went wrong."""
        number, _, text = step.rpartition(":") if re.match(r"\d:", step) else ("", "", step)
        if number:
            text = step.split(":", 1)[1]
        imap = self.session(number)
        self.tag += 1
        tag = b"x%d" % self.tag
        m = re.search(r"@([A-Z]+)$", text)
        if m:
            data = globals()[m.group(1)].encode()
            text = text[:m.start()].replace("{21+}>", "")
            line = text.encode() + b"{%d+}\r\n" % len(data) + data
        elif ">" in text:
            head, literal = text.split(">", 1)
            data = literal.encode()
            line = re.sub(r"\{\d+\+\}$", "", head).encode() + b"{%d+}\r\n" % len(data) + data
        else:
            line = text.encode()
        try:
            imap.writer.write(tag + b" " + line + b"\r\n")
            imap.writer.flush()
            untagged = []
            while True:
                answer = imap.line()
                if answer.startswith(tag + b" "):
                    return answer[len(tag) + 1:], untagged
                if answer.startswith(b"+"):
                    imap.writer.write(b"*\r\n")
                    imap.writer.flush()
                untagged.append(answer)
        except (EOFError, OSError) as e:
            del self.sessions[number]
            return b"CLOSED", [str(type(e).__name__).encode()]


class Ours(Side):
    def __init__(self, server):
        super().__init__()
        self.server = server

    def open(self):
        s = socket.create_connection(("127.0.0.1", self.server.port("imap")), timeout=30)
        imap = mime_dovecot.Imap(s.makefile("rb"), s.makefile("wb"))
        s.close()
        imap.command(f'LOGIN "{self.server.mail("alice")}" "{self.server.password("alice")}"')
        return imap


class Theirs(Side):
    def __init__(self):
        super().__init__()
        self.first = mime_dovecot.Dovecot(settings=NAMESPACE, location="sdbox:%s/mail")
        self.sessions[""] = self.first
        self.more = []

    def open(self):
        p = self.first.start()
        self.more.append(p)
        return mime_dovecot.Imap(p.stdout, p.stdin)

    def close(self):
        for p in [*self.more, self.first.process]:
            try:
                p.stdin.close()
            except BrokenPipeError:
                pass  # it ended by itself
            p.wait()
        shutil.rmtree(self.first.dir)


# Codes of a NO that RFC 3501 does not have: either may say more than the other.
EXTRA_CODES = (b"NONEXISTENT", b"CANNOT", b"ALREADYEXISTS", b"EXPUNGEISSUED")
# Untagged OK codes that only inform, and that RFC 3501 leaves to the server.
IGNORED_CODES = (b"HIGHESTMODSEQ", b"NOMODSEQ", b"CLOSED", b"UNSEEN", b"NOTIFICATIONOVERFLOW")


def system_flags(text):
    """Keywords aside: ours are of the account, Dovecot's of the mailbox."""
    return sorted(w.lower() for w in text.strip(b"()").split() if w.startswith(b"\\"))


def utc(date):
    """INTERNALDATE as a moment: sdbox forgets the zone that APPEND gave, we keep it."""
    return str(email.utils.parsedate_to_datetime(date.decode().strip().replace("-", " ", 2)).timestamp())


def code_of(text):
    m = re.match(rb"\[([^\]]*)\]", text)
    if not m:
        return b""
    words = m.group(1).split(b" ")
    if words[0] in (b"APPENDUID", b"COPYUID", b"UIDVALIDITY"):
        words[1] = b"V"
    if words[0] == b"PERMANENTFLAGS":
        words[1:] = system_flags(m.group(1)[15:])
    if words[0] in EXTRA_CODES:
        return b""
    if words[0] == b"BADCHARSET":
        words = words[:1]
    return b" ".join(words)


def fetch_items(answer):
    r = mime_dovecot.Reader(answer)
    m = re.match(rb"\* (\d+) FETCH \(", answer)
    r.at = m.end()
    items = []
    while answer[r.at:r.at + 1] != b")":
        name = r.name().upper()
        value = r.value()
        if name == "FLAGS":
            value = sorted(v.lower() for v in value if v.lower() != b"\\recent")
        if name == "INTERNALDATE":
            value = utc(value)
        if name.startswith("BODY["):
            value = value or b""
        items.append((name, repr(value)))
        r.space()
    return (b"FETCH " + m.group(1), tuple(sorted(items)))


def normal(answer):
    """What an untagged answer means, None for nothing."""
    line = answer.rstrip(b"\r\n")
    m = re.match(rb"\* (\d+ )?([A-Z-]+) ?(.*)", line, re.S)
    if not m:
        return ("other", line[:1])
    word, rest = m.group(2), m.group(3)
    if word == b"FETCH":
        return fetch_items(answer)
    if word in (b"OK", b"NO", b"BAD"):
        code = code_of(rest)
        return None if not code or code.split(b" ")[0] in IGNORED_CODES else (word, code)
    if word == b"RECENT":
        return None  # who gets \Recent when two sessions look is nobody's promise
    if word in (b"LIST", b"LSUB"):
        flags, name = re.match(rb"\(([^)]*)\) (.*)", rest, re.S).groups()
        name = re.sub(rb'^("/"|NIL) "?(.*?)"?$', rb"\2", name)
        # What may be told unasked is not compared.
        told = (b"\\unmarked",) + ((b"\\haschildren", b"\\hasnochildren") if word == b"LSUB" else ())
        return (word, tuple(sorted(f.lower() for f in flags.split() if f.lower() not in told)), name)
    if word == b"FLAGS":
        return (word, tuple(system_flags(rest)))
    if word == b"STATUS":
        return (word, re.sub(rb"UIDVALIDITY \d+", b"UIDVALIDITY V", rest.replace(b'"', b"")))
    if word == b"SEARCH":
        return (word, rest.strip())
    if word in (b"CAPABILITY", b"ID", b"BYE", b"NAMESPACE"):
        return (word,)
    return (word, m.group(1), rest)


def meaning(result):
    tagged, untagged = result
    m = re.match(rb"(\S+) ?(.*)", tagged.rstrip(b"\r\n"), re.S)
    lines = [n for n in map(normal, untagged) if n]
    ordered = [n for n in lines if n[0] in (b"EXPUNGE",)]
    rest = sorted((n for n in lines if n[0] not in (b"EXPUNGE",)), key=repr)
    return (m.group(1), code_of(m.group(2)), ordered, rest)


def compare(ours, theirs, steps):
    used, times = set(), {}
    for text in steps:
        times[text] = times.get(text, 0) + 1
        step = text if times[text] == 1 else f"{text} #{times[text]}"
        got, wanted = ours.do(text), theirs.do(text)
        same = meaning(got) == meaning(wanted)
        if step in KNOWN:
            used.add(step)
            ok(not same, f"{step}: differs ({KNOWN[step]})")
        elif not ok(same, step):
            a, b = meaning(got), meaning(wanted)
            note(f"ours:    {[x for x in a if x not in b]!r:.1500}")
            note(f"Dovecot: {[x for x in b if x not in a]!r:.1500}")
            note(f"ours: {got[0]!r:.200}\nDovecot: {wanted[0]!r:.200}")
    return used


def main():
    theirs = Theirs()
    with Server(accounts=["alice"], config=["disable_plaintext_auth = no"]) as s:
        ours = Ours(s)
        used = compare(ours, theirs, STEPS)
        for side in (ours, theirs):
            side.sessions.pop("2", None)
            side.do("UNSELECT")
        used |= compare(ours, theirs, ["3:" + step for step in THIRD_SESSION])
        eq(sorted(set(KNOWN) - used), [], "every known difference is tried")
        eq(s.crashes(), [], "nothing crashed")
    theirs.close()
    done()


main()
