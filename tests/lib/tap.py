"""TAP for tests in Python: ok(), eq(), done()."""
import os
import sys

_count = _failed = 0


def ok(good, what):
    global _count, _failed
    _count += 1
    _failed += not good
    print(f"{'' if good else 'not '}ok {_count} - {what}", flush=True)
    return bool(good)


def eq(got, wanted, what):
    if not ok(got == wanted, what):
        print(f"#   got:    {got!r:.2000}\n#   wanted: {wanted!r:.2000}", flush=True)


def note(text):
    for line in str(text).split("\n"):
        print("# " + line, flush=True)


def as_root():
    """Goes on as root, by sudo if need be; fails where neither is possible."""
    if os.geteuid():
        os.execvp("sudo", ["sudo", "-n", "-E", sys.executable, *sys.argv])


def skip_all(why):
    """For what reads ../shared alone."""
    print(f"1..0 # SKIP {why}")
    sys.exit(0)


def done():
    print(f"1..{_count}", flush=True)
    sys.exit(1 if _failed else 0)
