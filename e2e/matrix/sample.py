"""How much of the matrix is run, as the environment says."""

import os
import random

# How many calls of each kind there are at most.
ALL = 1 << 30


class Sample:
    """`QUIRE_ROUNDS` calls of each kind beside its first and its last one, chosen by `QUIRE_SEED`; `all` is every call.
    Without it there are none beside those two, and settings that can make no difference are left out."""

    def __init__(self):
        rounds = os.environ.get("QUIRE_ROUNDS")
        self.is_pruned = rounds is None
        self.more = 0 if self.is_pruned else ALL if rounds == "all" else int(rounds)
        self.seed = int(os.environ.get("QUIRE_SEED") or random.getrandbits(32))

    def __str__(self):
        if self.is_pruned:
            return "the pruned matrix"
        if self.more == ALL:
            return "everything"
        return f"{self.more} more calls of each kind; replay with QUIRE_SEED={self.seed}"

    def some(self, ats):
        """Some of these calls, the same ones for the same seed."""
        return random.Random(f"{self.seed} {ats}").sample(ats, min(self.more, len(ats)))
