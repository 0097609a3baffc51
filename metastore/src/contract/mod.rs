//! What every [`Metastore`] must do, as a suite that runs over each
//! implementation and each kind of bucket: [`metastore_contract!`](crate::metastore_contract).

#![allow(missing_docs, reason = "the suite's functions are sentences")]
#![allow(clippy::unwrap_used, reason = "a failed expectation is what a suite is for")]

mod appending;
pub mod commits;
mod ending;
mod past;
mod reading;
mod renaming;
mod upkeep;

use std::any::Any;
use std::sync::Arc;

use bytes::Bytes;
use quire_bucket::{Bucket, Created, Key};
use quire_proto::{Appended, CommitKind, LogUpkeep, Lsn, Metastore, SealedCommit, VolumeName, VolumeState};

use commits::{commit, write};

pub use appending::*;
pub use ending::*;
pub use past::*;
pub use reading::*;
pub use renaming::*;
pub use upkeep::*;

/// Where the suite runs: an empty store.
pub struct Subject {
    /// The store's objects, to look at and to damage.
    pub bucket: Bucket,
    /// A client that has not seen anything yet; it polls quickly.
    pub connect: Box<dyn Fn() -> Arc<dyn LogUpkeep> + Send + Sync>,
    /// What must live as long as the store.
    pub keep: Box<dyn Any + Send + Sync>,
}

/// Declares a test for each function of the suite. The argument is an
/// expression for a future of an empty [`Subject`].
#[macro_export]
macro_rules! metastore_contract {
    ($subject:expr) => {
        $crate::metastore_contract! { @each $subject;
            a_new_name_is_free
            statements_are_a_chain_of_which_the_newest_counts
            what_an_owner_wants_kept_is_a_chain_too
            a_marker_on_what_is_not_kept_is_refused
            a_replica_marks_once_and_takes_its_marker_back
            markers_are_found_with_the_time_they_came_and_can_be_removed
            a_stub_keeps_its_lsn_taken_and_knows_who_won
            who_slept_through_a_collection_learns_that_his_lsn_is_taken
            checkpoints_are_found_newest_first_and_can_be_dropped
            the_stores_clock_goes_on
            commits_come_back_and_the_newest_is_the_head
            a_second_append_at_one_lsn_is_told_who_won
            a_retry_of_a_won_append_is_won
            gaps_are_refused
            another_history_is_a_conflict
            a_creation_over_a_live_volume_is_refused
            a_write_to_a_name_without_a_volume_is_refused
            racing_appenders_have_one_winner_for_each_lsn
            large_commits_come_back
            voids_alone_leave_a_name_free
            a_void_changes_nothing_of_a_live_volume
            a_deleted_volume_stays_deleted_until_it_is_created_anew
            a_void_after_a_deletion_counts_as_an_lsn
            deleting_what_has_gone_on_is_a_conflict
            deleting_again_is_the_same_deletion
            deleting_nothing_is_not_found
            headers_are_linked_whatever_the_rollups_say
            a_replaced_commit_breaks_the_chain
            tidying_makes_up_for_a_missed_rollup
            a_damaged_commit_is_named
            watchers_see_every_commit_in_order
            names_are_listed_by_parts_and_prefix
            a_renamed_volume_lives_under_its_new_name_only
            renaming_again_is_the_same_rename
            a_name_in_use_is_not_taken_by_a_rename
            names_may_be_swapped_back
            a_rename_undecided_is_finished_by_whoever_looks
            a_rename_undecided_is_finished_by_an_append
            a_rename_overtaken_by_a_commit_counts_for_nothing
            a_rename_overtaken_by_a_void_counts_for_nothing
            a_forged_reservation_moves_nothing
            a_rename_dropped_at_any_point_is_all_or_nothing
            a_restore_stands_on_the_old_snapshot_and_changes_what_came_since
            a_restore_that_is_asked_for_again_is_the_same
            a_restore_of_what_is_not_older_or_not_there_is_refused
            a_moment_names_the_newest_commit_that_was_there
            the_time_of_a_commit_names_the_last_one_of_that_time
            the_time_of_what_is_not_kept_is_told_of_single_commits_only
            markers_lie_beside_the_snapshot_they_are_about
            the_newest_checkpoint_at_or_before_a_place_is_found
            a_checkpoint_is_made_once_and_read_in_parts
        }
    };
    (@each $subject:expr; $($name:ident)*) => {
        $(
            #[tokio::test]
            async fn $name() {
                let subject = $subject.await;
                $crate::contract::$name(&subject).await;
            }
        )*
    };
}

impl Subject {
    fn client(&self) -> Arc<dyn LogUpkeep> {
        (self.connect)()
    }

    /// Puts other bytes in the place of an object.
    async fn replace(&self, key: &Key, bytes: impl Into<Bytes>) {
        self.bucket.delete(key).await.unwrap();
        assert_eq!(self.bucket.create(key, bytes.into()).await.unwrap(), Created::Won);
    }
}

fn volume(name: &str) -> VolumeName {
    VolumeName::parse(name).unwrap()
}

fn lsn(n: u64) -> Lsn {
    Lsn::new(n).unwrap()
}

async fn win(store: &dyn Metastore, volume: &VolumeName, commit: &SealedCommit) {
    match store.append(volume, commit).await.unwrap() {
        Appended::Won => {}
        Appended::Lost(winner) => panic!("LSN {} of {volume} is {:?}", commit.lsn(), winner.header),
    }
}

/// Creates a volume and writes to it until its log has `n` commits.
async fn grow(store: &dyn Metastore, volume: &VolumeName, n: u64) -> Vec<SealedCommit> {
    let mut log = vec![commit(None, CommitKind::Create)];
    win(store, volume, &log[0]).await;
    while (log.len() as u64) < n {
        let next = write(&log[log.len() - 1]);
        win(store, volume, &next).await;
        log.push(next);
    }
    log
}

fn assert_live(state: &VolumeState, head: &SealedCommit) {
    match state {
        VolumeState::Live(found) => assert_eq!(found.object_hash(), head.object_hash(), "{:?}", found.header()),
        other => panic!("not live: {other:?}"),
    }
}
