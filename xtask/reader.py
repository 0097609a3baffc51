"""The other program of `cargo xtask demo`: plain Python with its own SQLite, which meets Quire as a loadable extension.

reader.py EXTENSION NAME

Answers each line of standard input, a JSON string of SQL, with a line of JSON: the rows, the seconds taken, and how far
each counter of quire_stats moved meanwhile. Its first line is the answer to opening the volume.
"""

import json
import sqlite3
import sys
import time

extension, name = sys.argv[1:]


def stats():
    if volume is None:
        return {}
    cursor = volume.execute("SELECT * FROM quire_stats")
    return dict(zip((column[0] for column in cursor.description), cursor.fetchone()))


def answer(work):
    before, start = stats(), time.perf_counter()
    try:
        rows = work()
    except sqlite3.Error as error:
        sys.exit(f"reader.py: {error}")
    seconds, after = time.perf_counter() - start, stats()
    moved = {counter: value - before.get(counter, 0) for counter, value in after.items()}
    print(json.dumps({"rows": rows, "seconds": seconds, "stats": moved}), flush=True)


def open_volume():
    global volume
    volume = sqlite3.connect(f"file:{name}?vfs=quire", uri=True, isolation_level=None)
    return volume.execute("SELECT (SELECT page_count FROM pragma_page_count), count(*) FROM sqlite_schema").fetchall()


loader = sqlite3.connect(":memory:")
loader.enable_load_extension(True)
loader.load_extension(extension)
volume = None
answer(open_volume)
for line in sys.stdin:
    answer(lambda: volume.execute(json.loads(line)).fetchall())
