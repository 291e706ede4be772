"""Runs a command in a pseudo-terminal, and draws its output as an SVG file without external resources.

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

main_end, command_end = os.openpty()
fcntl.ioctl(command_end, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
# Progress output is left out: the picture shows the result.
process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=command_end, stderr=subprocess.DEVNULL)
os.close(command_end)
output = b""
while True:
    try:
        chunk = os.read(main_end, 65536)
    except OSError:  # Linux raises it when the other end is closed
        break
    if not chunk:
        break
    output += chunk
code = process.wait()
if not output:
    sys.exit(f"{' '.join(command)} printed nothing (exit code {code})")

console = Console(record=True, width=width, file=StringIO(), force_terminal=True, color_system="standard")
console.print(Text(f"$ {title}", style="bold"))
console.print(Text.from_ansi(output.decode().replace("\r\n", "\n").rstrip()))
# The web fonts would be fetched from another host.
template = re.sub(r"@font-face\s*{{.*?}}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
svg = console.export_svg(title="", code_format=template, unique_id="terminal")
# The title that screen readers read out.
svg = svg.replace(">", f"><title>{escape(title)}</title>", 1)
with open(path, "w", encoding="utf-8") as file:
    file.write("\n".join(line.rstrip() for line in svg.splitlines()) + "\n")
