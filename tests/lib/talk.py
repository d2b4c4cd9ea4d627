"""The language of tests/dialogue/*.talk (see tests/dialogue/README.md): parser and player.

A script is a list of steps; a player holds connections and variables and takes the steps one by one. It
knows nothing of how a server is started: it is given an environment with addresses of services, accounts, and
a way to run the posthorn command.
"""
import base64
import re
import shlex
import socket
import ssl
import struct


class TalkError(Exception):
    """The script itself is wrong."""


class Mismatch(Exception):
    """The server said something else."""


SERVICES = {"smtp", "submission", "submissions", "lmtp", "imap", "imaps"}
TLS_SERVICES = {"submissions", "imaps"}
SKIP_MAX = 10000
LINE = re.compile(r"^(?:([A-Za-z][A-Za-z0-9_]*) )?(C|C-|S|S\*|S&|S!|S-):(?: (.*))?$", re.S)
OUTPUT = re.compile(r"^>(\*|!)?:(?: (.*))?$")
WORDS = {"connect", "tls", "close", "half-close", "reset", "eof", "timeout", "set"}


class Step:
    def __init__(self, number, kind, name="", text="", extra=None):
        self.number, self.kind, self.name, self.text, self.extra = number, kind, name, text, extra


class Script:
    """tests: list of (title, [Step]); config: list of lines; accounts: names; only_posthorn."""

    def __init__(self, path):
        self.path, self.tests, self.config, self.accounts, self.only_posthorn = path, [], [], ["alice", "bob"], False
        with open(path, encoding="utf-8", newline="\n") as f:
            self.lines = [line.rstrip("\n") for line in f]
        self.at = 0
        while self.at < len(self.lines):
            line = self.lines[self.at]
            self.at += 1
            if line.strip() and not line.startswith("#"):
                self.take(line)
        if not self.tests:
            raise TalkError(f"{path}: no test; begin one with == TITLE")

    def fail(self, why):
        raise TalkError(f"{self.path}:{self.at}: {why}")

    def take(self, line):
        if line.startswith("== "):
            self.tests.append((line[3:].strip(), []))
            return
        if not self.tests:
            self.take_head(line)
            return
        self.tests[-1][1].append(self.step(line))

    def take_head(self, line):
        word, _, rest = line.partition(" ")
        if word == "config":
            self.config.append(rest)
        elif word == "accounts":
            self.accounts += rest.split()
        elif line.strip() == "only posthorn":
            self.only_posthorn = True
        else:
            self.fail("only config, accounts and \"only posthorn\" may stand before the first ==")

    def step(self, line):
        number = self.at
        m = LINE.match(line)
        if m:
            return Step(number, m.group(2), m.group(1) or "", m.group(3) or "")
        m = OUTPUT.match(line)
        if m:
            return Step(number, ">" + (m.group(1) or ""), text=m.group(2) or "")
        if line.strip() == ">.":
            return Step(number, ">.")
        if line.startswith(("$ ", "$! ")):
            kind, _, text = line.partition(" ")
            return Step(number, kind, text=text)
        word, _, rest = line.partition(" ")
        if word not in WORDS:
            self.fail(f"what is \"{line}\"?")
        if word == "set":
            name, _, value = rest.partition(" ")
            if value.startswith("<<"):
                value = self.heredoc(value[2:])
            return Step(number, "set", name, value)
        parts = rest.split()
        if word == "connect":
            if not parts or parts[-1] not in SERVICES or len(parts) > 2:
                self.fail("connect [NAME] SERVICE")
            return Step(number, word, parts[0] if len(parts) == 2 else "", parts[-1])
        if word == "timeout":
            return Step(number, word, text=rest)
        if len(parts) > 1:
            self.fail(f"{word} [NAME]")
        return Step(number, word, parts[0] if parts else "")

    def heredoc(self, end):
        lines = []
        while self.at < len(self.lines):
            line = self.lines[self.at]
            self.at += 1
            if line == end:
                return "".join(one + "\r\n" for one in lines)
            lines.append(line)
        self.fail(f"no {end}")


class Connection:
    """Bytes with a buffer; reads wait at most `timeout` seconds."""

    def __init__(self, address, timeout):
        self.buffer, self.is_closed = b"", False
        if address.startswith("unix:"):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(timeout)
            self.socket.connect(address[5:])
        else:
            host, _, port = address.rpartition(":")
            self.socket = socket.create_connection((host.strip("[]"), int(port)), timeout)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def start_tls(self):
        if self.buffer:
            raise Mismatch(f"bytes before the TLS handshake: {self.buffer!r}")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self.socket = context.wrap_socket(self.socket)

    def fill(self):
        """More bytes; False at the end."""
        try:
            data = self.socket.recv(65536)
        except ssl.SSLError as e:
            raise Mismatch(f"TLS: {e}") from e
        except socket.timeout:
            raise Mismatch("nothing came within the time") from None
        except ConnectionResetError:
            raise Mismatch("the connection was reset") from None
        self.buffer += data
        return bool(data)

    def line(self):
        while b"\n" not in self.buffer:
            if not self.fill():
                raise Mismatch(f"the server closed the connection (left: {self.buffer!r})")
        line, _, self.buffer = self.buffer.partition(b"\n")
        if not line.endswith(b"\r"):
            raise Mismatch(f"a line without CR: {line!r}")
        return line[:-1]

    def take(self, n):
        while len(self.buffer) < n:
            if not self.fill():
                raise Mismatch(f"the server closed the connection (left: {self.buffer!r})")
        data, self.buffer = self.buffer[:n], self.buffer[n:]
        return data

    def expect_eof(self):
        while self.fill():
            pass
        if self.buffer:
            raise Mismatch(f"instead of the end: {self.buffer!r}")

    def reset(self):
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


class Player:
    """environment: .address(service), .accounts {name: (address, password)}, .variables, .command(args) -> (status, out)"""

    INNERMOST = re.compile(r"\{\{((?:[^{}]|\{[0-9,]+\})*)\}\}")

    def __init__(self, environment):
        self.environment, self.connections, self.timeout, self.output = environment, {}, 20.0, []
        self.variables = {k: v.encode() for k, v in environment.variables.items()}
        for name, (address, password) in environment.accounts.items():
            self.variables[name] = address.encode()
            self.variables[name + ".password"] = password.encode()
            self.variables[name + ".local"] = address.split("@")[0].encode()
        self.any_order = []

    def close(self):
        for c in self.connections.values():
            c.socket.close()

    # ---- text ----

    def value(self, what):
        """The bytes of one {{...}}; None when it is a pattern."""
        if what == "*" or re.match(r"^(?:[A-Za-z_]\w*=)?/.*/$", what, re.S):
            return None
        word, colon, rest = what.partition(":")
        rest_bytes = rest.encode("utf-8", "surrogateescape")
        if colon and word == "base64":
            return base64.b64encode(rest_bytes)
        if colon and word == "plain":
            name, password = self.variables[rest], self.variables[rest + ".password"]
            return base64.b64encode(b"\0" + name + b"\0" + password)
        if colon and word == "len":
            return str(len(self.variables[rest])).encode()
        if colon and word == "x":
            return bytes.fromhex(rest)
        if colon and word == "repeat":
            count, _, text = rest.partition(":")
            return text.encode("utf-8", "surrogateescape") * int(count)
        if what in self.variables:
            return self.variables[what]
        raise TalkError(f"what is {{{{{what}}}}}?")

    def pieces(self, text):
        """The text as a list of bytes and of patterns (strings)."""
        patterns = []
        while True:
            m = self.INNERMOST.search(text)
            if not m:
                break
            value = self.value(m.group(1))
            if value is None:
                patterns.append(m.group(1))
                new = f"\ue000{len(patterns) - 1}\ue001"
            else:
                new = value.decode("utf-8", "surrogateescape")
            text = text[: m.start()] + new + text[m.end():]
        out = []
        for i, part in enumerate(re.split("\ue000([0-9]+)\ue001", text)):
            out.append(patterns[int(part)] if i % 2 else part.encode("utf-8", "surrogateescape"))
        return out

    def literal(self, text):
        pieces = self.pieces(text)
        if any(isinstance(p, str) for p in pieces):
            raise TalkError("a pattern can only stand in what the server says")
        return b"".join(pieces)

    def matches(self, text, line):
        pattern, names = b"", []
        for p in self.pieces(text):
            if isinstance(p, bytes):
                pattern += re.escape(p)
            elif p == "*":
                pattern += b".*"
            else:
                name, _, regex = p.partition("/")
                regex = regex[:-1].encode()
                if name:
                    names.append(name[:-1])
                    pattern += b"(?P<" + name[:-1].encode() + b">" + regex + b")"
                else:
                    pattern += b"(?:" + regex + b")"
        m = re.fullmatch(pattern, line, re.S)
        if m:
            for name in names:
                self.variables[name] = m.group(name)
        return bool(m)

    # ---- steps ----

    def play(self, steps):
        for i, step in enumerate(steps):
            try:
                if step.kind != "S&" or (i + 1 < len(steps) and steps[i + 1].kind == "S&" and steps[i + 1].name == step.name):
                    self.take(step)
                else:
                    self.take(step)
                    self.settle_any_order(step)
            except (Mismatch, OSError) as e:
                wanted = f"\n  wanted: {step.text}" if step.text else ""
                raise Mismatch(f"line {step.number}: {e}{wanted}") from e
            except (TalkError, KeyError) as e:
                raise TalkError(f"line {step.number}: {e}") from e

    def connection(self, step):
        if step.name not in self.connections:
            raise TalkError(f"there is no connection \"{step.name}\"")
        c = self.connections[step.name]
        c.socket.settimeout(self.timeout)
        return c

    def take(self, step):
        if step.kind == "set":
            self.variables[step.name] = self.literal(step.text)
        elif step.kind == "timeout":
            self.timeout = float(step.text)
        elif step.kind == "connect":
            self.connect(step)
        elif step.kind in ("$", "$!"):
            self.run_command(step)
        elif step.kind.startswith(">"):
            self.check_output(step)
        elif step.kind.startswith(("C", "S")):
            self.speak(step, self.connection(step))
        else:
            self.act(step, self.connection(step))

    def connect(self, step):
        c = Connection(self.environment.address(step.text), self.timeout)
        if step.name in self.connections:
            self.connections[step.name].socket.close()
        self.connections[step.name] = c
        if step.text in TLS_SERVICES:
            c.start_tls()

    def act(self, step, c):
        if step.kind == "tls":
            c.start_tls()
        elif step.kind == "half-close":
            c.socket.shutdown(socket.SHUT_WR)
        elif step.kind == "eof":
            c.expect_eof()
        elif step.kind == "reset":
            c.reset()
            del self.connections[step.name]
        else:
            c.socket.close()
            del self.connections[step.name]

    def speak(self, step, c):
        if step.kind == "C":
            c.socket.sendall(self.literal(step.text) + b"\r\n")
        elif step.kind == "C-":
            c.socket.sendall(self.literal(step.text))
        elif step.kind == "S-":
            wanted = self.literal(step.text)
            got = c.take(len(wanted))
            if got != wanted:
                raise Mismatch(f"the server said {got!r}")
        elif step.kind == "S&":
            self.any_order.append(step)
        else:
            self.match_lines(step.kind[1:], step.text, c.line)

    def match_lines(self, how, text, next_line):
        for _ in range(SKIP_MAX):
            line = next_line()
            if self.matches(text, line) != (how == "!"):
                return
            if how != "*":
                raise Mismatch(f"said: {line.decode('utf-8', 'backslashreplace')}")
        raise Mismatch(f"not among {SKIP_MAX} lines")

    def settle_any_order(self, last):
        wanted, self.any_order = self.any_order, []
        c = self.connection(last)
        while wanted:
            line = c.line()
            found = next((s for s in wanted if self.matches(s.text, line)), None)
            if not found:
                rest = "".join(f"\n  wanted: {s.text}" for s in wanted)
                raise Mismatch(f"said: {line.decode('utf-8', 'backslashreplace')}{rest}")
            wanted.remove(found)

    def run_command(self, step):
        words = shlex.split(self.literal(step.text).decode())
        if not words or words[0] != "posthorn":
            raise TalkError("only the posthorn command can be run")
        status, out = self.environment.command(words[1:])
        self.output = out.split(b"\n")
        if self.output[-1] == b"":
            self.output.pop()
        if (status == 0) != (step.kind == "$"):
            raise Mismatch(f"exit status {status}: {out.decode('utf-8', 'backslashreplace')}")

    def check_output(self, step):
        def next_line():
            if not self.output:
                raise Mismatch("the output ended")
            return self.output.pop(0)

        if step.kind == ">.":
            if self.output:
                raise Mismatch(f"more output: {self.output!r}")
        else:
            self.match_lines(step.kind[1:], step.text, next_line)


def play_script(script, environment, say):
    """Plays all tests of a script; `say(line)` gets TAP. Returns the number that failed."""
    player, failed = Player(environment), 0
    for number, (title, steps) in enumerate(script.tests, 1):
        if failed:
            say(f"not ok {number} - {title} (not reached)")
            failed += 1
            continue
        try:
            player.play(steps)
            say(f"ok {number} - {title}")
        except (Mismatch, TalkError) as e:
            failed += 1
            say(f"not ok {number} - {title}")
            for line in str(e).split("\n"):
                say(f"# {script.path}: {line}")
    player.close()
    return failed
