#!/bin/sh
# The client scenario in the sqlite3 shell: shell.sh EXTENSION NAME ROLE (see README.md).
set -eu
extension=$1 name=$2 role=$3

# Runs the SQL of standard input on the volume.
on_volume() {
    {
        printf '.bail on\n.load "%s"\n.open "file:%s?vfs=quire"\n' "$extension" "$name"
        cat
    } | sqlite3 -batch -init /dev/null
}

# expect WANTED: standard input must be exactly that.
expect() {
    got=$(cat)
    [ "$got" = "$1" ] || { printf 'got:\n%s\nwanted:\n%s\n' "$got" "$1" >&2; exit 1; }
}

case $role in
write)
    on_volume <<'SQL' | expect 'quire
0|
1000|125125.0
ahead
clean'
.vfsname
CREATE TABLE track(id INTEGER PRIMARY KEY, title TEXT NOT NULL, seconds REAL);
BEGIN;
WITH RECURSIVE i(n) AS (VALUES(1) UNION ALL SELECT n + 1 FROM i WHERE n < 1000)
INSERT INTO track SELECT n, 'Track ' || n, n / 4.0 FROM i;
COMMIT;
BEGIN;
DELETE FROM track;
SELECT count(*), sum(seconds) FROM track;
ROLLBACK;
SELECT count(*), sum(seconds) FROM track;
SELECT state FROM quire_status;
.once /dev/stderr
SELECT quire_push();
SELECT state FROM quire_status;
SQL
    ;;
clone)
    on_volume <<'SQL' | expect '1000|125125.0
Track 500
ok'
SELECT count(*), sum(seconds) FROM track;
SELECT title FROM track WHERE id = 500;
PRAGMA integrity_check;
SQL
    ;;
append)
    on_volume <<'SQL' | expect '1001|125186.5'
INSERT INTO track VALUES(1001, 'Coda', 61.5);
SELECT count(*), sum(seconds) FROM track;
.once /dev/stderr
SELECT quire_push();
SQL
    ;;
pull)
    on_volume <<'SQL' | expect '1000|125125.0
1001|125186.5
ok'
SELECT count(*), sum(seconds) FROM track;
.once /dev/stderr
SELECT quire_pull();
SELECT count(*), sum(seconds) FROM track;
PRAGMA integrity_check;
SQL
    ;;
*)
    echo "unknown role: $role" >&2
    exit 2
    ;;
esac
