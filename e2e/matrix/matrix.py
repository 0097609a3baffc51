"""The commit matrix: matrix.py EXTENSION SQLITE_VERSION [NAME] (see README.md). With NAME only what has it in its name
is run."""

import functools
import os
import sys
import tempfile
import time

import apsw

from children import in_child, run_all, tidy_up_when_told_to_end
from database import Expected
from faults import run_faults
from kills import run_kills
from outside import run_outside
from sample import Sample
from scenarios import JOURNALS, LEVELS, SCENARIOS, Combination, combinations

# Where processes are killed in the pruned matrix: every way to end a journal, with and without a super-journal.
KILL_COMBINATIONS = ("delete-full", "persist-full", "memory-full", "delete-off")


def learn():
    """What every scenario must lead to, from ordinary files."""
    with tempfile.TemporaryDirectory(prefix="quire-matrix-") as folder:
        return {scenario.name: Expected(scenario, folder) for scenario in SCENARIOS}


def jobs(extension, sample):
    """Everything to run, by name."""
    expected = in_child(learn)
    for scenario in SCENARIOS:
        for combination in combinations(scenario, sample.is_pruned):
            arguments = (extension, scenario, combination, expected[scenario.name], sample)
            yield f"faults {scenario.name} {combination}", functools.partial(run_faults, *arguments)
            if str(combination) in KILL_COMBINATIONS or not sample.is_pruned:
                yield f"kills {scenario.name} {combination}", functools.partial(run_kills, *arguments)
    for journal in JOURNALS[:4]:
        for level in LEVELS:
            combination = Combination(journal, level)
            yield f"outside {combination}", functools.partial(run_outside, extension, combination)


def main():
    extension, version, *only = sys.argv[1:]
    if apsw.sqlitelibversion() != version:
        sys.exit(f"this is SQLite {apsw.sqlitelibversion()}, not {version}")
    tidy_up_when_told_to_end()
    sample = Sample()
    print(f"commit matrix on SQLite {version}: {sample}", flush=True)
    start = time.monotonic()
    cases, failed = 0, []

    def report(name, value, failure):
        nonlocal cases
        if failure:
            failed.append(name)
            print(f"test {name} ... FAILED\n{failure}", flush=True)
        else:
            cases += value
            print(f"test {name} ... ok ({value} cases)", flush=True)

    chosen = {name: job for name, job in jobs(extension, sample) if " ".join(only) in name}
    run_all(chosen, os.cpu_count() or 1, report)
    verdict = f"FAILED: {len(failed)} of {len(chosen)} groups" if failed else f"ok. {cases} cases"
    print(f"commit matrix on SQLite {version}: {verdict}; {time.monotonic() - start:.1f} s")
    sys.exit(1 if failed else 0)


main()
