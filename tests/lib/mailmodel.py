"""What mailboxes must hold after commands of IMAP: a model of two of them, for tests in which the server dies or fails in between."""
import copy
import re

import mailtools as mail

BOXES = ("INBOX", "Other")
mail.imaplib.Commands.setdefault("MOVE", ("SELECTED",))


class Model:
    """{mailbox: {uid: [key, flags]}}, and what is never taken back: UIDVALIDITY and the highest UID seen. One command at a time."""

    def __init__(self):
        self.boxes = {b: {} for b in BOXES}
        self.validity, self.highest = {}, {b: 0 for b in BOXES}
        self.sent = {}  # what was appended last under a key
        self.under_way, self.happened, self.wrong = None, 0, []

    def after(self, act):
        """What it is when the act has happened. A message that gets a UID stands under a name until that is known."""
        kind, box, uid, what = act
        new = copy.deepcopy(self.boxes)
        other = BOXES[1 - BOXES.index(box)]
        if kind == "APPEND":
            new[box]["new"] = [what, set()]
        elif kind == "EXPUNGE":
            new[box] = {u: m for u, m in new[box].items() if "\\Deleted" not in m[1]}
        elif kind == "STORE":
            sign, flag = what
            (new[box][uid][1].add if sign == "+" else new[box][uid][1].discard)(flag)
        else:
            new[other]["new"] = copy.deepcopy(new[box][uid])
            if kind == "MOVE":
                del new[box][uid]
        return new

    def do(self, client, act):
        """Whether it was acknowledged; then the model has it. Refused: it has not happened. No answer, or one that says that who
        should know it is gone: it is under way until somebody looks."""
        kind, box, uid, what = act
        client.untagged_responses.clear()
        self.under_way = act
        if kind == "APPEND":
            self.sent[what] = mail.message(what, size=500)
            status, answer = client.append(box, None, None, self.sent[what])
        elif kind == "EXPUNGE":
            status, answer = client.expunge()
        elif kind == "STORE":
            status, answer = client.uid("STORE", str(uid), f"{what[0]}FLAGS.SILENT", f"({what[1]})")
        else:
            status, answer = client.uid(kind, str(uid), BOXES[1 - BOXES.index(box)])
        if status != "OK" and b"is gone" in (answer[-1] or b""):
            return False
        self.under_way = None
        if status == "OK":
            self.take_over(act, answer, client.untagged_responses)
        return status == "OK"

    def take_over(self, act, answer, responses):
        boxes = self.after(act)
        code = [v[-1] for k, v in responses.items() if k in ("APPENDUID", "COPYUID")] or [answer[-1] or b""]
        for name in BOXES:
            if "new" in boxes[name]:
                new = int(re.search(rb"(\d+)\]?[^\d]*$", re.sub(rb"\].*", b"", code[0])).group(1))
                if new <= self.highest[name]:
                    self.wrong.append(f"UID {new} given again in {name}, where {self.highest[name]} was")
                boxes[name][new] = boxes[name].pop("new")
                self.highest[name] = new
        self.boxes = boxes

    def look(self, client):
        """Everything that is there, compared with the model, which takes over what happened of the command under way."""
        found = {}
        for box in BOXES:
            count = select(client, box, readonly=True)
            validity, uidnext = client.response("UIDVALIDITY")[1][0], int(client.response("UIDNEXT")[1][0])
            if self.validity.setdefault(box, validity) != validity:
                self.wrong.append(f"UIDVALIDITY of {box} was {self.validity[box]}, is {validity}")
            if uidnext <= self.highest[box]:
                self.wrong.append(f"UIDNEXT of {box} is {uidnext}, and {self.highest[box]} was given")
            found[box] = read(client) if count else {}
            self.highest[box] = max([self.highest[box], *found[box]])
        if self.under_way and same(self.after(self.under_way), found):
            self.happened += 1
        elif not same(self.boxes, found):
            self.wrong.append(f"under way: {self.under_way}\nthe model: {self.boxes}\nfound:     {found}")
        self.boxes, self.under_way = found, None


def same(boxes, found):
    """Whether what was found is this; "new" is one message with a UID that is not known yet."""
    for box in BOXES:
        wanted, got = dict(boxes[box]), dict(found[box])
        new = wanted.pop("new", None)
        extra = [u for u in got if u not in wanted]
        if new and (len(extra) != 1 or got.pop(extra[0]) != new or (wanted and extra[0] < max(wanted))):
            return False
        if got != wanted:
            return False
    return True


def select(client, box, readonly=False):
    """How many messages it has; one whose store is away says NO."""
    status, answer = client.select(box, readonly)
    if status != "OK":
        raise mail.imaplib.IMAP4.abort(answer)
    return int(answer[0])


def read(client):
    messages = {}
    status, parts = client.fetch("1:*", "(UID FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT)])")
    if status != "OK":
        raise mail.imaplib.IMAP4.abort(parts)
    for part in parts:
        if isinstance(part, tuple):
            uid = int(re.search(rb"UID (\d+)", part[0]).group(1))
            flags = {f for f in re.search(rb"FLAGS \(([^)]*)\)", part[0]).group(1).decode().split() if f != "\\Recent"}
            messages[uid] = [part[1].decode().split(":", 1)[1].strip(), flags]
    return messages
