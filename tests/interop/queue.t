#!/usr/bin/env python3
"""The queue from outside: deferral and `queue flush`, routes (relayhost, transport_maps, address literals), loops, reports
(RFC 3464) by what NOTIFY asked for (RFC 3461), and `posthorn queue list|show|hold|release|delete`. The other side is a server in
this program; nsd answers for its zones."""
import email
import email.policy
import json
import os
import smtplib
import sys

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, "tests/lib"))
import mailtools as mail  # noqa: E402
from peers import Nsd  # noqa: E402
from server import Server, free_ports  # noqa: E402
from sink import Sink  # noqa: E402
from tap import done, eq, note, ok  # noqa: E402

ZONES = {
    "sink.test": "@ MX 10 mx\nmx A 127.0.0.1\n",
    "nowhere.test": "@ MX 10 mx\nmx A 127.0.0.2\n",
    "own.test": "@ MX 10 mail.example.test.\n",
    "example.test": "mail A 127.0.0.1\n",
    "echo.test": "@ MX 10 mx\nmx A 127.0.0.3\n",
    "test": "",
}


class Queue:
    """One user's view: submits as alice, reads alice's reports."""

    def __init__(self, server):
        self.server, self.number = server, 0

    def submit(self, to, options=(), notify=None, data=None):
        """[bytes sent]; `options` of MAIL, `notify` as RCPT's options."""
        self.number += 1
        data = data or mail.message(f"queue {self.number}", sender=self.server.mail("alice"), to=str(to))
        with smtplib.SMTP("127.0.0.1", self.server.port("submission"), timeout=60) as client:
            client.starttls(context=mail.tls_context())
            client.login(self.server.mail("alice"), self.server.password("alice"))
            refused = client.sendmail(self.server.mail("alice"), [to] if isinstance(to, str) else to, data, list(options),
                                      [notify] if notify else [])
        eq(refused, {}, f"submitted to {to if isinstance(to, str) else len(to)}")
        return data

    def list(self):
        """Records as `queue list --json` shows them."""
        return [json.loads(line) for line in self.server.command_good("queue", "list", "--json").splitlines()]

    def wait(self, wanted):
        """Until the queue is as wanted(records) says; a report or the trace says when to look, so few turns are needed."""
        for _ in range(600):
            records = self.list()
            if wanted(records):
                return records
            mail.imap(self.server, "alice").logout()
        return records

    def report(self, count):
        """The newest of alice's mails, once she has so many."""
        found = mail.wait_for_mail(self.server, "alice", count)
        m = email.message_from_bytes(found[max(found)], policy=email.policy.default)
        m.raw = found[max(found)]
        return m


def report_is(m, to, action, status, original, whole):
    """Everything that RFC 3464, 6522 and 3834 want of a report, as Python's parser sees it."""
    eq(m.get_content_type(), "multipart/report", "a report")
    eq(m.get_param("report-type"), "delivery-status", "... of delivery")
    eq(m["return-path"].strip(), "<>", "... with the null sender")
    eq(m["auto-submitted"], "auto-replied", "... that nobody answers by itself")
    eq([d for part in m.walk() for d in part.defects], [], "... without a defect")
    parts = list(m.iter_parts())
    eq([p.get_content_type() for p in parts],
       ["text/plain", "message/delivery-status", "message/rfc822" if whole else "text/rfc822-headers"], "... of the three parts")
    per_message, per_rcpt = parts[1].get_payload()[0], parts[1].get_payload()[-1]
    eq(per_message["reporting-mta"], "dns; mail.example.test", "... Reporting-MTA")
    ok(per_message["arrival-date"], "... Arrival-Date")
    eq(per_rcpt["final-recipient"], f"rfc822; {to}", "... Final-Recipient")
    eq(per_rcpt["action"], action, "... Action")
    eq(per_rcpt["status"], status, "... Status")
    ok(to in parts[0].get_content(), "... and words that name the recipient")
    if whole:
        part = m.raw.split(f"\r\n--{m.get_boundary()}".encode())[3].split(b"\r\n\r\n", 1)[1]
        eq(mail.without_added(part), original, "... and the message as it was sent")
    else:
        head = original.split(b"\r\n\r\n")[0].decode()
        ok(head.split("\r\n")[2] in parts[2].get_content(), "... and its header")
    return per_rcpt


def deferral(q, port):
    data = q.submit("bob@nowhere.test")
    records = q.wait(lambda r: r and r[0]["attempts"] == 1)
    eq([(r["state"], r["recipient"]) for r in records], [("deferred", "bob@nowhere.test")], "a server that is not there: deferred")
    eq(records[0]["status"], "4.4.1", "... because of the connection")
    ok(records[0]["due"] > records[0]["created"] + 200, "... until much later")
    with Sink(address="127.0.0.2", port=port) as late:
        ok("1 recipient" in q.server.command_good("queue", "flush"), "flushed")
        ok(late.wait_for(1), "it arrives")
        eq(mail.without_added(late.messages[0].data), data, "... as it was sent")
        eq(q.wait(lambda r: not r), [], "... and the queue is empty")


def commands(q, sink):
    data = q.submit(["one@later.sink.test", "two@later.sink.test"])
    records = q.wait(lambda r: len(r) == 2 and all(x["attempts"] for x in r))
    eq([r["reply"] for r in records], ["450 4.2.0 later"] * 2, "the server's words are kept")
    number = records[0]["message"]
    text = q.server.command_good("queue", "list")
    ok(number in text and "<two@later.sink.test>" in text and "450 4.2.0 later" in text, "queue list shows them")
    text = q.server.command_good("queue", "show", number)
    ok("one@later.sink.test" in text and "4.2.0" in text, "queue show")
    eq(q.server.command("queue", "show", number[:-1] + ("2" if number[-1] == "3" else "3"))[0], 1, "queue show of none is an error")
    ok("2 recipients held" in q.server.command_good("queue", "hold", number), "hold")
    eq([r["state"] for r in q.list()], ["held"] * 2, "... both are")
    sink.later = False
    q.server.command_good("queue", "flush")
    eq([r["state"] for r in q.list()], ["held"] * 2, "... flush leaves them alone")
    before = len(sink.messages)
    ok("2 recipients released" in q.server.command_good("queue", "release", number), "release")
    eq(q.wait(lambda r: not r), [], "... sends them, and the queue is empty")
    eq(sorted(r for m in sink.messages[before:] for r in m.rcpts),
       ["RCPT TO:<one@later.sink.test>", "RCPT TO:<two@later.sink.test>"], "... each once")
    eq(mail.without_added(sink.messages[-1].data), data, "... as it was sent")
    sink.later = True
    q.submit("three@later.sink.test")
    records = q.wait(lambda r: r and r[0]["attempts"])
    ok("1 recipient" in q.server.command_good("queue", "delete", records[0]["message"]), "delete")
    eq(q.list(), [], "... is gone")


def routes(q, sink, relay, other):
    for to, where, what in (("a@routed.test", other, "transport_maps"), ("a@deep.sub.test", other, "transport_maps of a parent"),
                            ("a@[127.0.0.1]", sink, "an address literal"), ("a@sink.test", sink, "MX")):
        before = len(where.messages)
        q.submit(to)
        ok(where.wait_for(before + 1), f"{what}: it arrives")
        eq(where.messages[-1].rcpts, [f"RCPT TO:<{to}>"], "... for its recipient")
    q.server.config.append(f"relayhost = [127.0.0.1]:{relay.port}")
    q.server.write_config()
    q.server.command_good("reload")
    for to, where, what in (("a@anywhere.test", relay, "relayhost"), ("b@routed.test", other, "transport_maps before relayhost")):
        before = len(where.messages)
        q.submit(to)
        ok(where.wait_for(before + 1), f"{what}: it arrives")
    q.server.config.pop()
    q.server.write_config()
    q.server.command_good("reload")
    eq(q.wait(lambda r: not r), [], "the queue is empty")


def reports(q, sink, count):
    data = q.submit("bad@sink.test", ("ENVID=QQ314159", "RET=FULL"), "ORCPT=rfc822;b+2Bd@sink.test", None)
    m = q.report(count + 1)
    fields = report_is(m, "bad@sink.test", "failed", "5.1.1", data, True)
    eq(fields["diagnostic-code"], "smtp; 550 5.1.1 no such user", "... Diagnostic-Code")
    eq(fields["remote-mta"], "dns; mx.sink.test", "... Remote-MTA")
    eq(fields["original-recipient"], "rfc822; b+d@sink.test", "... Original-Recipient, decoded")
    ok("Original-Envelope-Id: QQ314159" in m.as_string(), "... Original-Envelope-Id")
    data = q.submit("bad@sink.test", ("RET=HDRS",))
    report_is(q.report(count + 2), "bad@sink.test", "failed", "5.1.1", data, False)
    data = q.submit("good@sink.test", (), "NOTIFY=SUCCESS")
    report_is(q.report(count + 3), "good@sink.test", "relayed", "2.0.0", data, False)
    before = len(sink.heard)
    q.submit("bad@sink.test", (), "NOTIFY=NEVER")
    q.submit("bad@sink.test", (), "NOTIFY=SUCCESS,DELAY")
    ok(sink.wait_for_line("RCPT TO:<bad@sink.test>", 4), "both are refused")
    eq(q.wait(lambda r: not r), [], "nothing is left of them")
    ok(len(sink.heard) > before, "they were tried")
    # The next report is the next message's: nothing came of those two.
    q.submit("bad@sink.test")
    eq(len(mail.wait_for_mail(q.server, "alice", count + 4)), count + 4, "NOTIFY=NEVER, and without FAILURE: no report")
    return count + 4


def local_reports(q, count):
    """NOTIFY=SUCCESS for mailboxes here: a report with the address that was written to, by submission and by LMTP."""
    bob = q.server.mail("bob")
    team = f"team@{q.server.domain}"
    data = q.submit(bob, ("ENVID=QQ271828",), "NOTIFY=SUCCESS ORCPT=rfc822;b+2Bx@elsewhere.test")
    count += 1
    m = q.report(count)
    fields = report_is(m, bob, "delivered", "2.0.0", data, False)
    eq(fields["original-recipient"], "rfc822; b+x@elsewhere.test", "... Original-Recipient, decoded")
    eq(fields["diagnostic-code"], None, "... nobody else said anything")
    ok("Original-Envelope-Id: QQ271828" in m.as_string(), "... Original-Envelope-Id")
    twice = [bob, bob.replace("@", "+lists@")]
    before = len(mail.fetch_all(q.server, "bob"))
    q.submit(twice, (), "NOTIFY=SUCCESS")
    count += 1
    groups = list(q.report(count).iter_parts())[1].get_payload()[1:]
    eq(sorted((g["final-recipient"], g["action"]) for g in groups), sorted((f"rfc822; {to}", "delivered") for to in twice),
       "one mailbox by two addresses: both are told of")
    eq(len(mail.fetch_all(q.server, "bob")), before + 1, "... and the message is there once")
    q.server.command_good("alias", "add", team, bob, "good@sink.test")
    data = q.submit(team, (), "NOTIFY=SUCCESS")
    count += 1
    report_is(q.report(count), team, "expanded", "2.0.0", data, False)
    data = mail.message("by LMTP", sender=q.server.mail("alice"), to=bob)
    with smtplib.LMTP("127.0.0.1", q.server.port("lmtp")) as client:
        client.ehlo()
        ok(client.has_extn("dsn"), "LMTP: DSN is offered")
        eq(client.sendmail(q.server.mail("alice"), [bob], data, [], ["NOTIFY=SUCCESS"]), {}, "... delivered")
    count += 1
    report_is(q.report(count), bob, "delivered", "2.0.0", data, False)
    # The notice is owed from the very commit that was acknowledged: no death in between loses it, and it comes once.
    data = q.submit(bob, (), "NOTIFY=SUCCESS")
    q.server.kill()
    q.server.start()
    count += 1
    report_is(q.report(count), bob, "delivered", "2.0.0", data, False)
    # Not asked, or the null sender: the next report is the next message's.
    q.submit(bob, (), "NOTIFY=FAILURE")
    with smtplib.LMTP("127.0.0.1", q.server.port("lmtp")) as client:
        client.sendmail("", [bob], data, [], ["NOTIFY=SUCCESS"])
    eq(q.wait(lambda r: not r), [], "nothing is left in the queue")
    data = q.submit("bad@sink.test")
    count += 1
    report_is(q.report(count), "bad@sink.test", "failed", "5.1.1", data, True)
    eq(len(mail.fetch_all(q.server, "alice")), count, "... and nothing was told that nobody asked for")
    return count


def loops(q, count):
    for to, what in (("a@own.test", "the best MX is our own name"), ("a@echo.test", "a server that says our name")):
        data = q.submit(to)
        count += 1
        ok("loop" in report_is(q.report(count), to, "failed", "5.4.6", data, True)["diagnostic-code"], what)
    q.submit("a@circle.test")
    count += 1
    m = q.report(count)
    fields = list(m.iter_parts())[1].get_payload()[-1]
    eq(fields["status"], "5.4.6", "a circle through ourselves ends")
    ok("hops" in fields["diagnostic-code"], "... by the count of its hops")
    eq(q.wait(lambda r: not r), [], "the queue is empty")
    return count


def main():
    own = free_ports(1)[0]
    with Sink() as sink, Sink("relay.test") as relay, Sink("other.test") as other, \
            Sink("mail.example.test", "127.0.0.3", sink.port) as echo, Nsd({
                **ZONES, "sink.test": ZONES["sink.test"] + "later MX 10 mx\n"}) as nsd, \
            Server(services=("submission", "lmtp", "imap", "imaps"), config=[
                f"listen = smtp 127.0.0.1:{own}", f"dns_servers = 127.0.0.1:{nsd.port}", f"smtp_client_port = {sink.port}",
                "mynetworks = 127.0.0.0/8", "transport_maps = inline:{ "
                f"{{routed.test = smtp:[127.0.0.1]:{other.port}}}, {{.sub.test = smtp:[127.0.0.1]:{other.port}}}, "
                f"{{circle.test = smtp:[127.0.0.1]:{own}}} }}"]) as s:
        sink.later = True
        sink.answer = lambda line: ("550 5.1.1 no such user" if line.startswith("RCPT TO:<bad@") else
                                    "450 4.2.0 later" if sink.later and "@later.sink.test>" in line and line.startswith("RCPT") else None)
        q = Queue(s)
        try:
            routes(q, sink, relay, other)
            deferral(q, sink.port)
            commands(q, sink)
            count = local_reports(q, reports(q, sink, 0))
            loops(q, count)
            eq(len(echo.messages), 0, "nothing was sent to ourselves")
        except Exception as e:  # what the server said is worth more than the trace of Python
            ok(False, f"{type(e).__name__}: {e}")
            note(s.log()[-4000:])
        eq(s.crashes(), [], "no role crashed")
    done()


main()
