//! What the fuzzer found once, and mutations of its seeds: see `quire_testkit::fuzz`.

use quire_sqlite_format::fuzz::TARGETS;
use quire_testkit::fuzz::replay;

#[test]
fn any_file_is_walked_once_or_is_no_database() {
    for (target, check) in TARGETS {
        replay(target, check, 5_000);
    }
}
