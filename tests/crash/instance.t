#!/usr/bin/env python3
"""A process that is started again makes message ids of its own: not in the range of the one before it, nor of any that lives."""
import os
import re
import signal
import smtplib
import sys

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, "tests/lib"))
from server import Server  # noqa: E402
from tap import done, eq, ok  # noqa: E402

DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
KILLS = 4


def instance(s):
    """Of the front that takes a message now: bits 24 to 30 of its id (base/log.h)."""
    for _ in range(100):
        try:
            with smtplib.SMTP("127.0.0.1", s.port("smtp"), timeout=30) as client:
                client.ehlo()
                client.mail("me@example.org")
                client.rcpt("alice@example.test")
                reply = client.data(b"Subject: x\r\n\r\nx\r\n")[1].decode()
        except (OSError, smtplib.SMTPException):
            continue  # the front is not back yet
        text = re.search(r"queued as (\w{13})", reply).group(1)
        number = 0
        for digit in text:
            number = number * 32 + DIGITS.index(digit)
        return number >> 24 & 127
    return None


def main():
    with Server(accounts=["alice"], services=("smtp",), config=["front_processes = 1"]) as s:
        seen = [instance(s)]
        for _ in range(KILLS):
            os.kill(dict(s.roles())["front"], signal.SIGKILL)
            seen.append(instance(s))
        eq(len(set(seen)), KILLS + 1, "each front has a number of its own")
        ok(all(1 <= n <= 127 for n in seen), "... that fits into the ids")
        ok(min(seen[1:]) > len(s.roles()), "... and that nobody else has")
    done()


main()
