"""The rows of the table: what is measured, with which command, and what is wanted of it (times the peer, or a bound).

{smtp}, {imap} and so on are the ports of the server under test. `figure` finds the number in what the tool and srvstat print.
Mailboxes for IMAP rows: user101 to user120 with 1000 messages of 10 KB, user151 with 10,000 of 4 KB.
"""
from typing import NamedTuple


class Row(NamedTuple):
    name: str
    text: str
    command: str
    figure: str
    unit: str = "/s"
    wanted: str = "1"
    settings: tuple = ()      # of posthorn.conf, for this row
    prepare: str = ""         # a command to run once before
    once: bool = False
    less_is_better: bool = False

    def preparation(self):
        return self._replace(command=self.prepare, figure="", prepare="")


DELIVERED, ACCEPTED = r"delivered_rate=([\d.]+)", r"accept_rate=([\d.]+)"
WATCH = "-W 127.0.0.1:{imap} -I secret"
NO_CACHE = (("login_cache", "no"),)


def op(name):
    """imapload's line of an operation: its rate."""
    return rf"^{name}\s+n=\d+ .*?rate=([\d.]+)"


def imap(name, text, arguments, **more):
    return Row(f"imap_{name}", f"IMAP {text}", f"imapload -p {{imap}} -w secret {arguments}", op(more.pop("line", name.split("_")[0])), **more)


FILL = "imapload -p {imap} -w secret -o fill -M -c 10 -b 101 -n 20 -k 1000 -s 10240"
FILL_LARGE = "imapload -p {imap} -w secret -o fill -M -c 1 -b 151 -n 1 -k 10000 -s 4096"

ROWS = [
    Row("rest_pss", "memory of all processes at rest (PSS)", "true", r"pss=([\d.]+)", unit="MB", wanted="<= 40 MB", once=True, less_is_better=True),
    Row("smtp_c50", "SMTP, accepted and visible, 10 KB, 50 connections", f"smtpload -p {{smtp}} -m 2000 -c 50 -s 10240 {WATCH}", DELIVERED, wanted="10"),
    Row("smtp_c10", "the same, 10 connections", f"smtpload -p {{smtp}} -m 2000 -c 10 -s 10240 {WATCH}", DELIVERED),
    Row("smtp_c1", "the same, 1 connection", f"smtpload -p {{smtp}} -m 500 -c 1 -s 10240 {WATCH}", DELIVERED),
    Row("smtp_1perconn", "SMTP, one message per connection, 50 connections", f"smtpload -p {{smtp}} -m 2000 -c 50 -k 1 -s 10240 {WATCH}", DELIVERED),
    Row("smtp_rcpt10", "SMTP, 10 recipients each", "smtpload -p {smtp} -m 500 -c 20 -N 10 -s 10240", ACCEPTED),
    Row("smtp_1m", "SMTP, 1 MB", f"smtpload -p {{smtp}} -m 300 -c 10 -s 1048576 {WATCH}", DELIVERED),
    Row("lmtp_c4", "LMTP, 10 KB, 4 connections", "smtpload -L -p {lmtp} -m 4000 -c 4 -s 10240", ACCEPTED, wanted="4"),
    Row("submission", "submission: STARTTLS, AUTH, one message per connection, 20 connections",
        "smtpload -p {submission} -m 1000 -c 20 -k 1 -S -f load@example.test -a user%d@example.test -w secret -s 10240", ACCEPTED, wanted="3"),
    Row("exists", "250 to IDLE EXISTS, p50", "e2elat -p {smtp} -i {imap} -w secret -m 40", r"EXISTS.*?p50=([\d.]+)", unit="ms", wanted="< 5 ms", less_is_better=True),
    Row("login_hash", "IMAP logins, every hash computed, 10 connections", "imapload -p {imap} -w secret -o login -c 10 -d 3", op("login"), wanted="1.5", settings=NO_CACHE),
    Row("login_cached", "IMAP logins, 10 connections", "imapload -p {imap} -w secret -o login -c 10 -d 3", op("login"), wanted="6"),
    Row("login_tls", "the same under TLS", "imapload -p {imaps} -T -w secret -o login -c 10 -d 3", op("login")),
    imap("append_c10", "APPEND 10 KB, 10 connections", "-o append -c 10 -b 101 -n 20 -d 3", prepare=FILL, wanted="3"),
    imap("append_c1", "APPEND 10 KB, 1 connection", "-o append -c 1 -b 101 -n 20 -d 3"),
    imap("fetchall_10k", "FETCH 1:* of 10,000, warm", "-o fetchall -c 1 -b 151 -n 1 -m 5 -F", prepare=FILL_LARGE),
    imap("flags_10k", "FETCH 1:* (FLAGS) of 10,000", "-o flags -c 1 -b 151 -n 1 -m 20"),
    imap("select_10k", "SELECT of 10,000", "-o select -c 1 -b 151 -n 1 -m 20"),
    imap("body_c1", "FETCH BODY.PEEK[] 10 KB, 1 connection", "-o body -c 1 -b 101 -n 20 -d 3"),
    imap("body_c10", "FETCH BODY.PEEK[] 10 KB, 10 connections", "-o body -c 10 -b 101 -n 20 -d 3"),
    imap("searchhdr", "SEARCH of header fields", "-o searchhdr -c 4 -b 101 -n 20 -d 3"),
    imap("searchtext", "SEARCH of bodies", "-o searchtext -c 2 -b 101 -n 20 -m 20"),
    imap("status", "STATUS", "-o status -c 10 -b 101 -n 20 -d 2"),
    imap("noop", "NOOP", "-o noop -c 10 -b 101 -n 20 -d 2"),
    imap("store", "STORE", "-o store -c 10 -b 101 -n 20 -d 3"),
    imap("copy_c10", "COPY", "-o copy -c 10 -b 101 -n 20 -d 3"),
    imap("move_c10", "MOVE", "-o move -c 10 -b 101 -n 20 -d 2"),
    imap("expunge_c10", "EXPUNGE", "-o expunge -c 10 -b 101 -n 20 -d 2"),
    imap("mix_c20", "a mix of all, 20 sessions (bodies read)", "-o mix -c 20 -b 101 -n 20 -d 6", line="body"),
]
