"""The VFS `faulty`: passes every call on to `quire`, counts those that change something, and at a chosen one fails or
kills the process."""

import os
import resource
import signal
import tempfile

import apsw

FCNTL_SYNC, PHASETWO = 21, 22

# Calls that need room on the disk: on a full one all of them fail, from the first on.
NEED_ROOM = {"write", "FCNTL_SYNC", "PHASETWO", "journal-write", "super-write", "super-delete"}


class Fault:
    """What happens at call number `at`.

    `kill`    the process dies before the call
    `died`    the process dies once the call was carried out
    `before`  the call fails and is not passed on
    `after`   the call is passed on, then fails
    `full`    from here on, calls that need room fail with SQLITE_FULL and are not passed on
    `limit`   from here on, the operating system lets this process write to no file: what fails is Quire itself
    """

    def __init__(self, at, kind, how):
        self.at, self.kind, self.how = at, kind, how

    def __str__(self):
        return f"call {self.at} ({self.kind}) {self.how}"


class Plan:
    """Counts the calls while it is armed, and lets its fault happen."""

    def __init__(self):
        self.armed = False

    def arm(self, fault=None):
        self.armed, self.fault, self.calls, self.fired = True, fault, [], False

    def disarm(self):
        self.armed = False
        limit_files(resource.RLIM_INFINITY)

    def meet(self, kind, name, call, *arguments):
        if not self.armed:
            return call(*arguments)
        at, fault = len(self.calls), self.fault
        self.calls.append((kind, name))
        if fault is None or at < fault.at:
            return call(*arguments)
        if at == fault.at:
            self.fired = kind == fault.kind
            if fault.how == "died":
                call(*arguments)
            if fault.how in ("kill", "died"):
                os.kill(os.getpid(), signal.SIGKILL)
            if fault.how == "before":
                raise apsw.IOError("on purpose, before the call")
            if fault.how == "after":
                call(*arguments)
                raise apsw.IOError("on purpose, after the call")
            if fault.how == "limit":
                limit_files(0)
        if fault.how == "full" and kind in NEED_ROOM:
            raise apsw.FullError("on purpose: the disk is full")
        return call(*arguments)


def limit_files(size):
    """Python ignores the signal that comes with it, so writing fails with EFBIG."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


class FaultyVFS(apsw.VFS):
    def __init__(self, plan):
        self.plan = plan
        super().__init__("faulty", "quire")

    def excepthook(self, *_):
        """Failures are meant, and SQLite reports them."""

    def xOpen(self, name, flags):
        if name is None:
            # A temporary file. Not every apsw can pass the missing name on.
            return apsw.VFSFile("quire", tempfile.mktemp(prefix="quire-matrix-"), flags)
        if flags[0] & apsw.SQLITE_OPEN_MAIN_DB:
            return FaultyFile(self.plan, name, flags, name.filename(), "")
        if flags[0] & apsw.SQLITE_OPEN_MAIN_JOURNAL:
            opened = "journal-"
        elif flags[0] & apsw.SQLITE_OPEN_SUPER_JOURNAL:
            opened = "super-"
        else:
            return apsw.VFSFile("quire", name, flags)
        return self.plan.meet(opened + "open", name, FaultyFile, self.plan, name, flags, name, opened)

    def xDelete(self, name, sync_folder):
        kind = "journal-delete" if name.endswith("-journal") else "super-delete"
        return self.plan.meet(kind, name, super().xDelete, name, sync_folder)


class FaultyFile(apsw.VFSFile):
    """A database, or a journal: then its calls have the prefix of that in their kind."""

    def __init__(self, plan, opened_as, flags, name, prefix):
        self.plan, self.name, self.prefix = plan, name, prefix
        super().__init__("quire", opened_as, flags)

    def meet(self, kind, call, *arguments):
        return self.plan.meet(self.prefix + kind, self.name, call, *arguments)

    def excepthook(self, *_):
        """Failures are meant, and SQLite reports them."""

    def xWrite(self, data, offset):
        return self.meet("write", super().xWrite, data, offset)

    def xTruncate(self, size):
        return self.meet("truncate", super().xTruncate, size)

    def xSync(self, flags):
        return self.meet("sync", super().xSync, flags)

    def xRead(self, amount, offset):
        # Reading a journal is a step of a rollback; reading the database is a step of nothing.
        if self.prefix:
            return self.meet("read", super().xRead, amount, offset)
        return super().xRead(amount, offset)

    def xUnlock(self, level):
        return self.meet("unlock", super().xUnlock, level) if not self.prefix else super().xUnlock(level)

    def xFileControl(self, op, pointer):
        kind = {FCNTL_SYNC: "FCNTL_SYNC", PHASETWO: "PHASETWO"}.get(op)
        if kind and not self.prefix:
            return self.meet(kind, super().xFileControl, op, pointer)
        return super().xFileControl(op, pointer)
