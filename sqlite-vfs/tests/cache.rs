//! SQLite's page cache, which goes by the change counter that the VFS serves.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;

/// Nothing has read the counter when the first commit fills the cache. Another
/// machine's commit that changes nothing on page 1 but the counter stores none,
/// so the counter that is stored is that of the cache.
#[test]
fn what_the_first_commit_left_in_the_cache_is_not_trusted_after_a_pull() {
    let here = open("cache-first");
    run(&here, "BEGIN; CREATE TABLE t(a); INSERT INTO t VALUES (1); COMMIT");
    one(&here, "SELECT quire_push()");
    let there = open_there("cache-first");
    run(&there, "UPDATE t SET a = 2");
    one(&there, "SELECT quire_push()");
    one(&here, "SELECT quire_pull()");
    assert_eq!(one(&here, "SELECT a FROM t"), "2");
}
