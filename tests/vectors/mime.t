#!/usr/bin/env python3
"""Every message of ../shared/vectors over IMAP: ENVELOPE, BODY, BODYSTRUCTURE and every section, ours against Debian's Dovecot."""
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "lib"))
from server import TOP, Server  # noqa: E402
from tap import skip_all  # noqa: E402


def main():
    shared = os.environ.get("SHARED", os.path.join(TOP, "..", "shared"))
    if not os.path.isdir(os.path.join(shared, "vectors")):
        skip_all(f"there is no {shared}/vectors")
    with Server(accounts=["alice"], config=["disable_plaintext_auth = no"]) as s:
        side = f"127.0.0.1:{s.port('imap')}:{s.mail('alice')}:{s.password('alice')}"
        sys.stdout.flush()
        status = os.spawnv(os.P_WAIT, sys.executable, [sys.executable, os.path.join(HERE, "mime-dovecot"), "--shared", shared, "--ours", side])
        for line in s.crashes():
            print(f"# {line}")
        status = status or bool(s.crashes())
    sys.exit(status)


main()
