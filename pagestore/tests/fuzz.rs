//! What the fuzzer found once, and mutations of its seeds: see `quire_testkit::fuzz`.

use quire_pagestore::fuzz::TARGETS;
use quire_testkit::fuzz::replay;

#[test]
fn any_bytes_are_a_segment_or_an_error() {
    for (target, check) in TARGETS {
        replay(target, check, 5_000);
    }
}
