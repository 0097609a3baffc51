//! The power goes, again and again, under a program that commits numbered transactions through the extension. What
//! was acknowledged as durable is there, whole; what is there is a first part of what was done; and work goes on.
//!
//! A recorder writes down what the program asks of the disk. For random moments of it the machine's disk is made anew,
//! as it might be after a loss of power (`quire_powerloss` says what a disk may forget), and looked at. One of these
//! disks is the beginning of the next round.
//!
//! `QUIRE_ROUNDS` sets the number of rounds of each test, `QUIRE_SEED` replays its steps and moments (which threads come
//! first is not up to it). The disk on which a test fails is kept in `target/tmp/power-<test>`.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)] // helpers of tests may panic like tests

mod life;
mod work;

use life::{Lie, Life, Loser};
use work::Plan;

const FULL: Plan = Plan { synchronous: "FULL", journal_mode: "DELETE", cache_size: "2GiB", is_double: false };

#[test]
fn with_synchronous_full_nothing_acknowledged_is_lost() {
    Life::new("full", FULL, Loser::Machine).run();
}

#[test]
fn with_synchronous_full_and_many_small_files_nothing_acknowledged_is_lost() {
    let plan = Plan { journal_mode: "PERSIST", cache_size: "1MiB", ..FULL };
    Life::new("small-files", plan, Loser::Machine).run();
}

#[test]
fn with_synchronous_normal_an_earlier_state_is_left_and_nothing_pushed_is_lost() {
    let plan = Plan { synchronous: "NORMAL", cache_size: "1MiB", ..FULL };
    Life::new("normal", plan, Loser::Machine).run();
}

#[test]
fn with_synchronous_off_an_earlier_state_is_left_and_nothing_pushed_is_lost() {
    let plan = Plan { synchronous: "OFF", journal_mode: "PERSIST", ..FULL };
    Life::new("off", plan, Loser::Machine).run();
}

#[test]
fn a_transaction_over_two_volumes_is_there_as_a_whole_or_not_at_all() {
    Life::new("double", Plan { is_double: true, ..FULL }, Loser::Machine).run();
}

#[test]
fn an_acknowledged_push_survives_in_a_folder_whose_machine_loses_power() {
    Life::new("store", Plan { synchronous: "NORMAL", ..FULL }, Loser::Store).run();
}

#[test]
fn a_machine_with_its_store_on_the_same_disk_loses_neither() {
    Life::new("same-disk", Plan { cache_size: "1MiB", ..FULL }, Loser::Both).run();
}

#[test]
fn a_disk_that_lies_about_syncs_is_noticed() {
    assert!(Life::new("lie", FULL, Loser::Machine).notices(Lie::FilesAreSynced));
    assert!(Life::new("lie", FULL, Loser::Machine).notices(Lie::NamesAreSynced));
    assert!(Life::new("lie", FULL, Loser::Store).notices(Lie::FilesAreSynced));
    assert!(Life::new("lie", FULL, Loser::Store).notices(Lie::NamesAreSynced));
}

#[test]
fn a_transaction_over_two_volumes_is_never_halved_with_synchronous_normal_either() {
    Life::new("double-normal", Plan { synchronous: "NORMAL", is_double: true, ..FULL }, Loser::Machine).run();
}
