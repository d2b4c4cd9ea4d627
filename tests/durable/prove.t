#!/usr/bin/env python3
"""posthorn prove: a disk that keeps what it says passes, after kill -9 at random moments; one that lies is caught, and how much is said.

The lying disk is a copy of the folder made in the middle (what was on the plates), checked with the witness of the end (what was
promised); and one whose newest frames, body files or index never arrived.
"""
import os
import shutil
import signal
import subprocess
import sys
import tempfile

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, "tests/lib"))
from server import binary  # noqa: E402
from tap import done, eq, note, ok  # noqa: E402

PROGRAM = os.environ.get("POSTHORN_RELEASE") or binary()
KILLS = int(os.environ.get("PROVE_KILLS", "5"))
BLOCK = 4096


class Proof:
    def __init__(self, folder):
        self.disk, self.witness = os.path.join(folder, "disk"), os.path.join(folder, "witness")
        os.mkdir(self.disk)

    def lines(self):
        try:
            with open(self.witness, "rb") as f:
                return f.read().count(b"\n")
        except FileNotFoundError:
            return 0

    def run(self, more, act=None):
        """Writes until the witness has so many more lines; then SIGKILL. `act`: in the middle, while it stands still."""
        wanted = self.lines() + more
        p = subprocess.Popen([PROGRAM, "prove", self.disk, "--witness", self.witness])
        try:
            while (lines := self.lines()) < wanted and p.poll() is None:
                if act and lines > wanted - more:
                    os.kill(p.pid, signal.SIGSTOP)
                    os.waitpid(p.pid, os.WUNTRACED)
                    act()
                    wanted = self.lines() + more // 2
                    os.kill(p.pid, signal.SIGCONT)
                    act = None
            return p.poll() is None
        finally:
            p.kill()
            p.wait()

    def check(self, disk=None):
        p = subprocess.run([PROGRAM, "prove", disk or self.disk, "--check", "--witness", self.witness], capture_output=True, timeout=120)
        return p.returncode, (p.stdout + p.stderr).decode(errors="replace")

    def copied(self, name):
        return os.path.join(os.path.dirname(self.disk), name)

    def copy(self, name):
        to = self.copied(name)
        shutil.rmtree(to, ignore_errors=True)
        subprocess.run(["cp", "-a", "--sparse=always", self.disk, to], check=True)
        return to


def newest_segment(disk):
    folder = os.path.join(disk, "posthorn-prove/log")
    return os.path.join(folder, max(n for n in os.listdir(folder) if n.endswith(".seg")))


def lose_frames(disk, count):
    """The newest frames never arrived."""
    path = newest_segment(disk)
    with open(path, "r+b") as f:
        data = f.read()
        frames = [at for at in range(BLOCK, len(data), BLOCK) if data[at:at + 4] == b"PHFR"]
        f.seek(frames[-count])
        f.write(b"\0" * (len(data) - frames[-count]))


def lose_body(disk):
    folder = os.path.join(disk, "posthorn-prove/body")
    os.truncate(os.path.join(folder, max(n for n in os.listdir(folder) if not n.startswith("new"))), BLOCK)


def caught(proof, name, lose=None):
    """`lose`: what happens to a copy made now; otherwise the copy of that name is there already."""
    disk = proof.copy(name) if lose else proof.copied(name)
    if lose:
        lose(disk)
    status, out = proof.check(disk)
    if not ok(status == 5 and "did NOT keep its promise" in out, f"{name}: caught"):
        note(out)


def main():
    folder = tempfile.mkdtemp(prefix="posthorn-prove-")
    try:
        proof = Proof(folder)
        for i in range(KILLS):
            ok(proof.run(300 + 137 * i), f"kill {i}: it writes until it is killed")
            status, out = proof.check()
            if not ok(status == 0 and "kept its promise" in out, f"kill {i}: all that was acknowledged is there"):
                note(out)
        ok(proof.run(1200, act=lambda: proof.copy("in the middle")), "a copy is made in the middle")
        status, out = proof.check()
        eq((status, "kept its promise" in out), (0, True), "the disk itself has all")
        caught(proof, "in the middle")
        caught(proof, "a frame missing", lambda disk: lose_frames(disk, 2))
        caught(proof, "ten frames missing", lambda disk: lose_frames(disk, 10))
        caught(proof, "a body missing", lose_body)
        caught(proof, "all of it missing", lambda disk: shutil.rmtree(os.path.join(disk, "posthorn-prove")))
        with open(proof.witness, "ab") as f:
            f.write(b"put 99999")
        eq(proof.check()[0], 0, "a witness's last line that is not whole counts for nothing")
        other = os.path.join(folder, "other")
        with open(other, "w", encoding="ascii") as f:
            f.write("something else\n")
        p = subprocess.run([PROGRAM, "prove", proof.disk, "--check", "--witness", other], capture_output=True, check=False)
        eq((p.returncode, b"no witness" in p.stderr), (1, True), "a file that is no witness is refused")
        p = subprocess.run([PROGRAM, "prove", proof.disk, "--witness", other + "2", "--seconds", "1"], capture_output=True, check=False)
        eq(p.returncode, 1, "a proof that was begun goes on with its own witness alone")
        os.mkdir(os.path.join(folder, "piped"))
        p = subprocess.run([PROGRAM, "prove", os.path.join(folder, "piped"), "--witness", "-", "--seconds", "1"], capture_output=True,
                           check=False)
        with open(other, "wb") as f:
            f.write(p.stdout)
        p = subprocess.run([PROGRAM, "prove", os.path.join(folder, "piped"), "--check", "--witness", other], capture_output=True, check=False)
        eq((p.returncode, b"kept its promise" in p.stdout), (0, True), "through a pipe: what came out of it is the witness")
    finally:
        shutil.rmtree(folder)
    done()


main()
