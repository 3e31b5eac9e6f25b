"""Kills a process after one of its system calls (`ptrace(2)`), as a crash at that instant would end it.

The tracer is a process of its own. When it ends, the kernel lets go of what it traces.
"""

import ctypes
import json
import os
import signal

CONT, SYSCALL, SEIZE, INTERRUPT, LISTEN, GET_SYSCALL_INFO = 7, 24, 0x4206, 0x4207, 0x4208, 0x420E
TRACESYSGOOD, TRACEFORK, TRACEVFORK, TRACECLONE, TRACEEXEC = 1, 2, 4, 8, 16
OPTIONS = TRACESYSGOOD | TRACEFORK | TRACEVFORK | TRACECLONE | TRACEEXEC
EVENT_EXEC, EVENT_STOP = 4, 128
AT_ENTRY, AT_EXIT = 1, 2
WALL = 0x40000000
STOPS = (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)

# The system calls that count.
ALL, AFTER_EXEC, OF_NEXT_WORKER = "all", "after exec", "of the next worker"

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.restype = ctypes.c_long
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


def ptrace(request, thread, address=0, data=0):
    result = libc.ptrace(request, thread, address, data)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


class Finished(Exception):
    """The process need not be killed any more."""


class Tracer:
    """Traces one process, and its children if it waits for a worker, until the system call after which to kill it."""

    def __init__(self, process, point, which):
        self.process, self.point, self.which = process, point, which
        self.target = process if which == ALL else None
        self.calls = []
        self.entered = {}
        self.processes = {}
        self.killed = self.finished = self.waits = False

    def finish(self, *_):
        self.finished = True
        if self.waits:
            raise Finished

    def seize(self):
        for thread in map(int, os.listdir(f"/proc/{self.process}/task")):
            ptrace(SEIZE, thread, data=OPTIONS)
            self.processes[thread] = self.process
            if self.which == ALL:
                # From here on, until which it runs without stops.
                ptrace(INTERRUPT, thread)

    def follow(self):
        while self.processes and not self.killed:
            self.waits = True
            if self.finished:
                return
            thread, status = os.waitpid(-1, WALL)
            self.waits = False
            if os.WIFSTOPPED(status):
                try:
                    self.stopped(thread, os.WSTOPSIG(status), status >> 16)
                except ProcessLookupError:
                    # Another thread has ended the process.
                    continue
            else:
                self.processes.pop(thread, None)

    def stopped(self, thread, number, event):
        if thread not in self.processes:
            with open(f"/proc/{thread}/status") as file:
                fields = dict(line.split(":", 1) for line in file)
            self.processes[thread] = int(fields["Tgid"])
        request, deliver = None, 0
        if number == signal.SIGTRAP | 0x80:
            self.at_system_call(thread)
        elif event == EVENT_EXEC:
            self.executed(thread)
        elif event == EVENT_STOP and number in STOPS:
            request = LISTEN
        elif event == 0:
            deliver = number
        if request is None:
            request = SYSCALL if self.processes[thread] == self.target else CONT
        if not self.killed:
            ptrace(request, thread, data=deliver)

    def executed(self, process):
        with open(f"/proc/{process}/cmdline") as file:
            is_worker = "worker" in file.read()
        if self.target is None and (self.which == AFTER_EXEC or is_worker):
            self.target = process

    def at_system_call(self, thread):
        info = (ctypes.c_ubyte * 88)()
        ptrace(GET_SYSCALL_INFO, thread, len(info), ctypes.addressof(info))
        if info[0] == AT_ENTRY:
            self.entered[thread] = int.from_bytes(bytes(info[24:32]), "little")
        elif info[0] == AT_EXIT and thread in self.entered:
            self.calls.append(self.entered.pop(thread))
            if len(self.calls) == self.point:
                os.kill(self.target, signal.SIGKILL)
                self.killed = True

    def run(self, report):
        signal.signal(signal.SIGTERM, self.finish)
        self.seize()
        os.write(report, b"\n")
        try:
            self.follow()
        except (Finished, ChildProcessError):
            pass
        os.write(report, json.dumps({"killed": self.killed, "calls": self.calls}).encode())


class Crash:
    """A tracer that kills a process after its system call with this number; with `None`, it only counts them."""

    def __init__(self, process, point, which):
        self.reports, report = os.pipe()
        self.tracer = os.fork()
        if self.tracer == 0:
            status = 1
            try:
                os.close(self.reports)
                Tracer(process, point, which).run(report)
                status = 0
            except PermissionError:
                os.write(report, b"-")
            finally:
                os._exit(status)
        os.close(report)
        first = os.read(self.reports, 1)
        if first == b"-":
            raise PermissionError("ptrace is not permitted")
        assert first == b"\n", "the tracer ended"

    def end(self):
        """Ends the tracer. Returns whether it has killed the process, and the numbers of the system calls."""
        os.kill(self.tracer, signal.SIGTERM)
        with os.fdopen(self.reports, "rb") as file:
            report = json.loads(file.read())
        assert os.waitpid(self.tracer, 0)[1] == 0
        return report["killed"], report["calls"]
