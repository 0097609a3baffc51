//! What the fuzzer found once, and mutations of its seeds: see `quire_testkit::fuzz`.

use quire_sqlite::fuzz::TARGETS;
use quire_testkit::fuzz::replay;

#[test]
fn file_calls_in_any_order_do_what_a_plain_file_does() {
    for (target, check) in TARGETS {
        replay(target, check, 400);
    }
}
