#!/usr/bin/env python3
"""Postfix in both directions, found by MX from a test name server, STARTTLS on: alice's submission goes from Posthorn to Postfix,
which sends it on to Posthorn for bob. What bob reads is what alice sent, to the byte. And what Postfix or the DNS refuse
comes back to alice as a report (RFC 3464)."""
import email
import os
import re
import sys

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, "tests/lib"))
import mailtools as mail  # noqa: E402
from peers import Nsd, Postfix  # noqa: E402
from server import Server, free_ports  # noqa: E402
from tap import done, eq, note, ok  # noqa: E402

MANY = 120
ZONES = {
    "remote.test": "@ MX 10 mx1\n@ MX 10 mx2\n@ MX 20 gone\nmx1 A 127.0.0.1\nmx2 A 127.0.0.1\ngone A 127.0.0.2\n",
    "direct.test": "@ A 127.0.0.1\n",
    "nullmx.test": "@ MX 0 .\n",
}


def delivery_status(data):
    """The per-recipient fields of a report: {name: value}."""
    m = email.message_from_bytes(data)
    if m.get_content_type() != "multipart/report":
        return {}
    parts = [p for p in m.walk() if p.get_content_type() == "message/delivery-status"]
    return {k.lower(): v for k, v in parts[0].get_payload()[-1].items()} if parts else {}


def round_trip(s, postfix):
    for number, size in enumerate((0, 5000, 200000, 3000000), 1):
        data = mail.message(f"round {number}", size=size, sender=s.mail("alice"), to="bob@remote.test")
        eq(mail.send(s, data, "bob@remote.test", sender=s.mail("alice"), service="submission", user="alice"), {},
           f"submitted, {len(data)} bytes")
        found = mail.wait_for_mail(s, "bob", number)
        received = found[max(found)]
        eq(mail.without_added(received), data, "it came back through Postfix, the same to the byte")
        hops = [h for h in email.message_from_bytes(received).get_all("Received", [])]
        ok(len(hops) >= 3, "a Received field from each hop")
        ok(any("by mx1.remote.test (Postfix)" in h and "TLS" in h for h in hops), "Posthorn used STARTTLS towards Postfix")
        ok(any("by mail.example.test" in h and "ESMTPS" in h for h in hops), "Postfix used STARTTLS towards Posthorn")
    ok(postfix.log_has(r"status=sent \(250 2\.0\.0"), "Postfix logged our 250")


def many_recipients(s, postfix):
    """More than one transaction takes, each way, with a body that is empty and one of 1 MB."""
    count = len(mail.fetch_all(s, "bob"))
    to = [f"r{i}@remote.test" for i in range(MANY)]
    for size in (0, 1000000):
        data = mail.message(f"many, {size} bytes", size=size, sender=s.mail("alice"), to="all@remote.test")
        eq(mail.send(s, data, to, sender=s.mail("alice"), service="submission", user="alice"), {}, f"to {MANY}, {len(data)} bytes")
        ok(postfix.wait_for_log(lambda log: all(len(re.findall(rf"to=<bob\+{i}@example\.test>, .*status=sent", log)) == (1 if size == 0 else 2)
                                                for i in range(MANY))), "Postfix brought all of them back, each once")
        found = mail.fetch_all(s, "bob")
        ok(len(found) > count, "they are there")
        count = len(found)
        eq(mail.without_added(found[max(found)]), data, "... the same to the byte")
    eq(s.command_good("queue", "list"), "The queue is empty.\n", "nothing is left in the queue")


def reports(s):
    cases = [
        ("nobody@remote.test", "5.1.1", "550"),
        ("anybody@nullmx.test", "5.1.10", None),
        ("anybody@nowhere.test", "5.1.2", None),
    ]
    for number, (to, status, code) in enumerate(cases, 1):
        data = mail.message(f"will fail {number}", sender=s.mail("alice"), to=to)
        mail.send(s, data, to, sender=s.mail("alice"), service="submission", user="alice")
        found = mail.wait_for_mail(s, "alice", number)
        fields = delivery_status(found[max(found)])
        if not ok(fields.get("final-recipient", "").replace(" ", "") == f"rfc822;{to}", f"{to}: a report comes back"):
            note(found[max(found)][:3000].decode(errors="replace"))
        eq(fields.get("action"), "failed", "... that it failed")
        eq(fields.get("status"), status, "... and why")
        if code:
            ok(code in fields.get("diagnostic-code", ""), "... in the remote server's words")
        ok(f"Subject: will fail {number}".encode() in found[max(found)], "... with the message's header")
    eq(s.command_good("queue", "list").strip().count("@"), 0, "nothing is left in the queue")


def main():
    # Postfix must know where Posthorn listens, and Posthorn where Postfix does.
    smtp = free_ports(1)[0]
    aliases = {"bob": "bob@example.test", **{f"r{i}": f"bob+{i}@example.test" for i in range(MANY)}}
    with Nsd({**ZONES, "test": ""}) as nsd, \
            Postfix("remote.test", aliases, f"127.0.0.1:{smtp}", "mx1.remote.test") as postfix, \
            Server(services=("lmtp", "submission", "submissions", "imap", "imaps"),
                   config=[f"listen = smtp 127.0.0.1:{smtp}", f"dns_servers = 127.0.0.1:{nsd.port}",
                           f"smtp_client_port = {postfix.port}", "minimal_backoff_time = 1s", "maximal_backoff_time = 2s"]) as s:
        s.ports["smtp"] = smtp
        try:
            round_trip(s, postfix)
            many_recipients(s, postfix)
            reports(s)
        except Exception as e:  # what the servers said is worth more than the trace of Python
            ok(False, f"{type(e).__name__}: {e}")
            note(postfix.log()[-4000:])
            note(s.log()[-4000:])
        eq(s.crashes(), [], "no role crashed")
    done()


main()
