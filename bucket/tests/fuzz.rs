//! What the fuzzer found once, and mutations of its seeds: see `quire_testkit::fuzz`.

use quire_bucket::fuzz::TARGETS;
use quire_testkit::fuzz::replay;

#[test]
fn whatever_a_store_answers_is_what_it_says_or_an_error() {
    for (target, check) in TARGETS {
        replay(target, check, 5_000);
    }
}
