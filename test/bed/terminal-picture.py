"""Runs a command in a terminal of its own, and draws what it shows: an SVG file with nothing in it to fetch.

Usage: terminal-picture.py FILE.svg TITLE COLUMNS COMMAND [ARG...]
"""

import fcntl
import os
import re
import struct
import subprocess
import sys
import termios
from html import escape
from io import StringIO

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

path, title, columns, *command = sys.argv[1:]
width = int(columns)

ours, theirs = os.openpty()
fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
# Progress is for whoever waits: the picture is of the result.
process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=subprocess.DEVNULL)
os.close(theirs)
shown = b""
while True:
    try:
        chunk = os.read(ours, 65536)
    except OSError:  # what Linux says once the other side is closed
        break
    if not chunk:
        break
    shown += chunk
code = process.wait()
if not shown:
    sys.exit(f"{' '.join(command)} showed nothing (exit code {code})")

console = Console(record=True, width=width, file=StringIO(), force_terminal=True, color_system="standard")
console.print(Text(f"$ {title}", style="bold"))
console.print(Text.from_ansi(shown.decode().replace("\r\n", "\n").rstrip()))
# The fonts would come from somewhere else.
template = re.sub(r"@font-face\s*{{.*?}}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
svg = console.export_svg(title="", code_format=template, unique_id="terminal")
# What somebody hears who cannot see it.
svg = svg.replace(">", f"><title>{escape(title)}</title>", 1)
with open(path, "w", encoding="utf-8") as file:
    file.write("\n".join(line.rstrip() for line in svg.splitlines()) + "\n")
