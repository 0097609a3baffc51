//! What the fuzzer found once, and mutations of its seeds: see `quire_testkit::fuzz`.

use quire_engine::fuzz::TARGETS;
use quire_testkit::fuzz::replay;

#[test]
fn any_files_are_a_replica_or_an_error_that_names_them() {
    for (target, check) in TARGETS {
        replay(target, check, 3_000);
    }
}
