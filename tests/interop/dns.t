#!/usr/bin/env python3
"""Role dns against Debian's nsd on loopback: every type that mail asks for, and the three results."""
import os
import socket
import subprocess
import sys
import tempfile

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, "tests/lib"))
from tap import done, eq, note, ok  # noqa: E402

# The role with its hooks, a channel and libunbound; it prints what a caller in `out` would get.
PROGRAM = os.environ.get("DNS_TEST", os.path.join(TOP, "build/asan/test/roles/dns_test"))

ZONE = """$ORIGIN example.test.
$TTL 300
@ SOA ns hostmaster 1 3600 600 86400 60
@ NS ns
ns A 127.0.0.1
@ MX 10 mail
@ MX 20 backup.mail
mail A 192.0.2.25
mail AAAA 2001:db8::25
backup.mail A 192.0.2.26
alias CNAME alias2
alias2 CNAME mail
nullmx MX 0 .
@ TXT "v=spf1 mx" " -all"
big TXT """ + " ".join('"' + "x" * 250 + '"' for _ in range(20)) + """
_25._tcp.mail TLSA 3 1 1 """ + "ab" * 32 + """
""" + "".join(f"many MX {i} m{i}.many\n" for i in range(200))

REVERSE = """$ORIGIN 2.0.192.in-addr.arpa.
$TTL 300
@ SOA ns.example.test. hostmaster.example.test. 1 3600 600 86400 60
@ NS ns.example.test.
25 PTR mail.example.test.
"""

QUESTIONS = [
    ("MX", "example.test", "10:mail.example.test 20:backup.mail.example.test (example.test)"),
    ("A", "mail.example.test", "192.0.2.25 (mail.example.test)"),
    ("AAAA", "MAIL.example.test.", "2001:db8::25 (mail.example.test)"),
    ("A", "alias.example.test", "192.0.2.25 (mail.example.test)"),
    ("MX", "nullmx.example.test", "0: (nullmx.example.test)"),
    ("TXT", "example.test", "[v=spf1 mx -all] (example.test)"),
    ("TXT", "big.example.test", f"[{'x' * 5000}] (big.example.test)"),
    ("TLSA", "mail.example.test", "3.1.1.32 (_25._tcp.mail.example.test)"),
    ("PTR", "192.0.2.25", "[mail.example.test] (25.2.0.192.in-addr.arpa)"),
    ("AAAA", "backup.mail.example.test", "no-data (backup.mail.example.test)"),
    ("A", "nobody.example.test", "no-name (nobody.example.test)"),
    ("MX", "elsewhere.test", "TEMPORARY ()"),  # nsd refuses: it is not its zone
]


def free_port():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start_nsd(folder, port):
    for name, text in (("example.test", ZONE), ("reverse", REVERSE)):
        with open(f"{folder}/{name}.zone", "w", encoding="ascii") as f:
            f.write(text)
    with open(f"{folder}/nsd.conf", "w", encoding="ascii") as f:
        f.write(f"""server:
  ip-address: 127.0.0.1@{port}
  username: ""
  chroot: ""
  zonesdir: "{folder}"
  database: ""
  pidfile: "{folder}/nsd.pid"
  xfrdfile: "{folder}/xfrd.state"
  zonelistfile: "{folder}/zone.list"
  xfrdir: "{folder}"
  server-count: 1
remote-control:
  control-enable: no
zone:
  name: example.test
  zonefile: example.test.zone
zone:
  name: 2.0.192.in-addr.arpa
  zonefile: reverse.zone
""")
    return subprocess.Popen(["nsd", "-d", "-c", f"{folder}/nsd.conf"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def wait_for_start(nsd):
    """It says so on its standard error, when its sockets are bound."""
    said = []
    for line in nsd.stderr:
        said.append(line)
        if "nsd started" in line:
            return True
    note("".join(said))
    return False


def main():
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        nsd = start_nsd(folder, port)
        try:
            ok(wait_for_start(nsd), "nsd starts")
            args = [x for kind, name, _ in QUESTIONS for x in (kind, name)]
            out = subprocess.run([PROGRAM, f"127.0.0.1:{port}", *args], capture_output=True, text=True, timeout=100)
            said = {tuple(line.split(" ")[:2]): line.split(" ", 2)[2] for line in out.stdout.splitlines()
                    if line.split(" ")[0] in {k for k, _, _ in QUESTIONS}}
            for kind, name, wanted in QUESTIONS:
                got = said.get((kind, name), "")
                if kind == "MX" and got:  # the order of an answer means nothing
                    *records, canonical = got.split(" ")
                    got = " ".join(sorted(records) + [canonical])
                eq(got, wanted, f"{kind} {name}")
            many = subprocess.run([PROGRAM, f"127.0.0.1:{port}", "MX", "many.example.test"], capture_output=True, text=True,
                                  timeout=100)
            eq(many.stdout.count(".many.example.test "), 200, "200 MX records, which need TCP")
        finally:
            nsd.terminate()
            nsd.wait()
    done()


main()
