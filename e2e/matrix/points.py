"""Where a transaction can fail: the calls that it makes, counted in a run without a fault; and what has to be true
after a fault at each of them."""

from children import Failed
from faulty import NEED_ROOM, Fault

# Calls that are also carried out and then reported as failed.
FAILS_AFTER = {"FCNTL_SYNC", "PHASETWO", "super-delete", "journal-delete", "write", "truncate", "unlock"}

# Where Quire itself writes.
ENGINE_WRITES = {"write", "FCNTL_SYNC", "PHASETWO", "super-delete"}

# Calls that belong to a commit only: with several volumes the first one is another than the last one.
OF_A_COMMIT = {"FCNTL_SYNC", "PHASETWO", "super-write", "super-delete"}


class Points:
    def __init__(self, scenario, combination, calls):
        self.kinds = [kind for kind, _ in calls]
        # SQLite treats SQLITE_FULL as it treats SQLITE_IOERR, and Quire writes at few of its writes, so that one
        # combination of settings shows them.
        self.is_typical = str(combination) == "delete-full"
        self.has_super_journal = "super-delete" in self.kinds
        if self.has_super_journal != combination.has_super_journal(scenario):
            raise Failed(f"a super-journal: {self.has_super_journal}, which was not expected")
        # The call that decides for each database; for one that only rolls back there is none.
        self.decisions = {}
        for schema in scenario.schemas:
            if self.has_super_journal:
                mine = [at for at, kind in enumerate(self.kinds) if kind == "super-delete"]
            else:
                ends = f"-{schema}"
                mine = [at for at, (kind, name) in enumerate(calls) if kind == "PHASETWO" and name.endswith(ends)]
            if len(mine) > 1:
                raise Failed(f"{schema} was decided {len(mine)} times in one transaction")
            self.decisions[schema] = mine[0] if mine else len(calls)

    def ats(self, sample):
        """Of each kind of call the first and the last one, and as many others as the sample wants. In a pruned matrix
        one combination of settings shows the first ones; those of a commit's own calls are told by each."""
        found = set()
        for kind in sorted(set(self.kinds)):
            ats = [at for at, other in enumerate(self.kinds) if other == kind]
            found |= {ats[-1], *sample.some(ats)}
            if self.is_typical or not sample.is_pruned or kind in OF_A_COMMIT:
                found.add(ats[0])
        return sorted(found)

    def faults(self, sample):
        """The faults to try, in the order of the calls."""
        for at in self.ats(sample):
            kind = self.kinds[at]
            if kind != "unlock":
                yield Fault(at, kind, "before")
            if kind in FAILS_AFTER:
                yield Fault(at, kind, "after")
            is_wanted = self.is_typical or not sample.is_pruned
            if kind in NEED_ROOM and is_wanted:
                yield Fault(at, kind, "full")
            if kind in ENGINE_WRITES and (is_wanted or kind != "write"):
                yield Fault(at, kind, "limit")

    def kills(self, sample):
        """The process dies before each call, after those of a commit, and once the transaction has returned."""
        for at in self.ats(sample):
            yield Fault(at, self.kinds[at], "kill")
            if self.kinds[at] in OF_A_COMMIT:
                yield Fault(at, self.kinds[at], "died")
        yield Fault(len(self.kinds), "end", "kill")

    def is_told_late(self, scenario, fault):
        """In EXCLUSIVE mode no unlock follows a transaction over several databases that was decided and whose journals
        then could not be ended. That it counts, Quire learns when SQLite looks at the databases again."""
        return scenario.exclusive and self.has_super_journal and fault.at >= max(self.decisions.values())

    def may_stop(self, fault):
        """A volume whose log cannot take in what was decided says so, and takes no more until it is opened again."""
        return fault is not None and fault.how == "limit" and self.has_super_journal

    def wanted(self, schema, fault, error):
        """What a database must be after the fault, given what the program was told."""
        if error is None:
            return "after"
        decided = self.decisions[schema]
        return "after" if fault.at > decided or fault.at == decided and fault.how in ("after", "died") else "before"
