"""An SMTP server that takes mail and keeps it, for tests of sending. What it says can be changed, and it can be made to wait.

    with Sink(answer=lambda line: "450 4.2.0 later" if line.startswith("RCPT TO:<later@") else None) as sink:
        sink.port, sink.wait_for(3), sink.messages[0].data
"""
import socket
import socketserver
import threading

EXTENSIONS = ("PIPELINING", "8BITMIME", "SIZE 50000000")


class Message:
    def __init__(self, sender, rcpts, data):
        self.sender, self.rcpts, self.data = sender, rcpts, data


class Session(socketserver.StreamRequestHandler):
    disable_nagle_algorithm = True

    def say(self, text):
        self.wfile.write(text.encode() + b"\r\n")

    def handle(self):
        sink, sender, rcpts = self.server.sink, None, []
        try:
            self.say(f"220 {sink.hostname} ESMTP")
            for raw in iter(self.rfile.readline, b""):
                line = raw.decode("utf-8", "replace").rstrip("\r\n")
                verb = line[:4].upper()
                with sink.changed:
                    sink.heard.append(line)
                    sink.changed.notify_all()
                reply = sink.answer(line)
                if verb == "QUIT":
                    self.say("221 2.0.0 bye")
                    return
                if reply:
                    self.say(reply)
                elif verb == "EHLO":
                    self.say("\r\n".join(f"250-{x}" for x in (sink.hostname, *sink.extensions)) + "\r\n250 ENHANCEDSTATUSCODES")
                elif verb == "DATA":
                    self.say("354 go on" if rcpts else "503 5.5.1 no recipients")
                    if rcpts:
                        self.say(sink.take(Message(sender, rcpts, self.body()), self.connection))
                        sender, rcpts = None, []
                else:
                    if verb in ("MAIL", "RSET"):
                        sender, rcpts = line, []
                    elif verb == "RCPT":
                        rcpts.append(line)
                    self.say("250 2.0.0 ok")
        except (OSError, EOFError):
            pass  # the client was killed

    def body(self):
        data = []
        for line in iter(self.rfile.readline, b""):
            if line == b".\r\n":
                return b"".join(data)
            data.append(line[1:] if line.startswith(b".") else line)
        raise EOFError


class Sink:
    def __init__(self, hostname="mx.sink.test", address="127.0.0.1", port=0, answer=None, extensions=EXTENSIONS, seconds=0):
        """`answer`: a command's own reply, or None for the usual one. `seconds`: how long the dot's answer takes."""
        self.hostname, self.extensions, self.seconds = hostname, extensions, seconds
        self.answer = answer or (lambda line: None)
        self.messages, self.heard, self.under_way = [], [], 0
        self.changed, self.is_over = threading.Condition(), threading.Event()
        socketserver.ThreadingTCPServer.allow_reuse_address = True
        socketserver.ThreadingTCPServer.request_queue_size = 100
        self.server = socketserver.ThreadingTCPServer((address, port), Session)
        self.server.daemon_threads, self.server.block_on_close, self.server.sink = True, False, self
        self.port = self.server.server_address[1]

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *args):
        self.is_over.set()
        self.server.shutdown()
        self.server.server_close()

    def take(self, message, connection):
        """Keeps it, waits as long as this server does, and says so if there is still somebody to say it to."""
        with self.changed:
            self.messages.append(message)
            self.under_way += 1
            self.changed.notify_all()
        self.is_over.wait(self.seconds)
        with self.changed:
            self.under_way -= 1
            self.changed.notify_all()
        connection.getpeername()
        return "250 2.0.0 taken"

    def wait_for(self, count, seconds=60):
        with self.changed:
            return self.changed.wait_for(lambda: len(self.messages) >= count, seconds)

    def wait_for_line(self, start, count=1, seconds=60):
        """Waits until it heard so many commands that begin so."""
        with self.changed:
            return self.changed.wait_for(lambda: sum(line.startswith(start) for line in self.heard) >= count, seconds)


def closed_port(address="127.0.0.1"):
    """A port that nobody listens on."""
    with socket.socket() as s:
        s.bind((address, 0))
        return s.getsockname()[1]
