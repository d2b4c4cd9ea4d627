"""Reads src/base/messages.def for the programs that make documents and fuzzing seeds of it."""
import os
import re

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TABLE = os.path.join(TOP, "src/base/messages.def")
SIZES = {"U8": 1, "U16": 2, "U32": 4, "U64": 8, "I64": 8, "FLAG": 1, "HASH": 32, "TICKET": 16, "FD": 1, "STR": 4, "BYTES": 4}

TOKEN = re.compile(r"""/\*\ ----\ (?P<section>.*?)\ ----\ \*/
    | /\*(?P<comment>.*?)\*/
    | MESSAGE\((?P<message>\w+),\s*(?P<number>\d+),\s*(?P<from>[\w\s|]+),\s*(?P<to>[\w\s|]+),\s*"(?P<text>[^"]*)"\)
    | RECORD\((?P<record>\w+)\)
    | (?P<kind>U8|U16|U32|U64|I64|FLAG|HASH|TICKET|FD|STR|BYTES)\((?P<field>\w+)(?:,\s*(?P<most>\d+))?\)
    | (?P<end>\bEND\b)
    | (?P<stray>\S+)""", re.X | re.S)


class Item:
    """A message (number is set) or a record."""

    def __init__(self, name, number=None, senders="", receivers="", text=""):
        self.name, self.number, self.text, self.fields = name, number, text, []
        self.senders, self.receivers = roles(senders), roles(receivers)


class Field:
    def __init__(self, kind, name, most):
        self.kind, self.name, self.most, self.comment = kind, name, int(most or 0), ""


def roles(words):
    return [w.strip()[2:].lower() for w in words.split("|") if w.strip()]


def tidy(comment):
    return " ".join(re.sub(r"\n\s*\*", "\n", comment).split())


def read():
    """[(section, [Item])] in the order of the table; raises ValueError on what it does not understand."""
    with open(TABLE, encoding="utf-8") as f:
        text = f.read()
    sections, item = [], None
    for m in TOKEN.finditer(text):
        if m["section"]:
            sections.append((m["section"], []))
        elif m["comment"] is not None:
            if item and item.fields:
                field = item.fields[-1]
                field.comment = (field.comment + " " + tidy(m["comment"])).strip()
        elif m["message"] or m["record"]:
            if item or not sections:
                raise ValueError(f"{m.group(0)} stands where nothing can begin")
            item = Item(m["message"], int(m["number"]), m["from"], m["to"], m["text"]) if m["message"] else Item(m["record"])
            sections[-1][1].append(item)
        elif m["kind"] and item:
            item.fields.append(Field(m["kind"], m["field"], m["most"]))
        elif m["end"] and item:
            item = None
        else:
            line = text.count("\n", 0, m.start()) + 1
            raise ValueError(f"{TABLE}:{line}: {m.group(0)}")
    return sections
