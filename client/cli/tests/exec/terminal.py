"""Job control of an interactive bash on a terminal, with a launcher in front of each program or without one.

    terminal.py LAUNCHER

Prints what bash reports at each step.
"""

import os
import pty
import re
import select
import sys

LAUNCHER = sys.argv[1]
PROMPT = b"ready> "
WAIT = 100


class Terminal:
    def __init__(self):
        pid, self.fd = pty.fork()
        if pid == 0:
            os.environ.update(PS1="", TERM="dumb")
            os.execv("/bin/bash", ["bash", "--norc", "--noprofile", "--noediting", "-i"])
        self.seen = b""
        self.send("PS1='ready> '\n")
        self.until(PROMPT)

    def send(self, text):
        os.write(self.fd, text.encode())

    def until(self, wanted):
        """Reads until the output has this."""
        while wanted not in self.seen:
            if not select.select([self.fd], [], [], WAIT)[0]:
                raise SystemExit(f"not seen: {wanted}: {self.seen}")
            self.seen += os.read(self.fd, 4096)
        found, _, self.seen = self.seen.partition(wanted)
        return (found + wanted).decode(errors="replace")

    def run(self, line, wanted=PROMPT):
        """Types a line, and prints the output up to `wanted` in a form that does not depend on ids and paths."""
        self.send(line + "\n")
        output = self.until(wanted)
        if wanted != PROMPT:
            output += self.until(PROMPT) if wanted.endswith(b"!") else ""
        return output

    def show(self, step, output):
        if LAUNCHER:
            output = output.replace(LAUNCHER + " ", "")
        output = output.replace("\r", "").replace("^C", "").replace("^Z", "").replace("^\\", "")
        output = re.sub(r"\[1\] \d+", "[1] PID", output)
        # The terminal may echo a line before bash has read it.
        lines = [line.strip() for line in output.split("\n")]
        print(step, [re.sub(r" +", " ", line) for line in lines if line and line != PROMPT.decode().strip()])


terminal = Terminal()
prefix = f"{LAUNCHER} " if LAUNCHER else ""
job = f"{prefix}sh -c 'trap \"echo continued\" CONT; echo on; while :; do read x; echo \"got $x\"; done'"

terminal.send(job + "\n")
terminal.until(b"on\r\n")
terminal.send("one\n")
terminal.until(b"got one")
terminal.send("\x1a")
terminal.show("stopped", "\n".join(terminal.until(PROMPT).split("\n")[1:]))
terminal.show("jobs", terminal.run("jobs -r; jobs -s | wc -l"))
terminal.send("fg\n")
terminal.until(b"continued")
terminal.send("two\n")
terminal.until(b"got two")
terminal.send("\x03")
terminal.until(PROMPT)
terminal.show("interrupted", terminal.run("echo $?"))
terminal.send(f"{prefix}sh -c 'kill -STOP $$; exit 6'\n")
terminal.until(PROMPT)
terminal.show("stopped by a signal", terminal.run("echo $?"))
terminal.send("fg > /dev/null\n")
terminal.until(PROMPT)
terminal.show("exited", terminal.run("echo $?"))
terminal.send(f"{prefix}cat &\n")
terminal.until(PROMPT)
# A read of the terminal in the background stops the program.
while "Stopped" not in terminal.run("jobs"):
    pass
terminal.show("background", terminal.run("kill %1; kill -CONT %1 2>/dev/null; wait %1 2>/dev/null; echo $?"))
terminal.show("size", terminal.run(f"stty rows 33 cols 77; {prefix}stty size"))
