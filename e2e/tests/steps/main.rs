//! Every command that changes something is killed at every step of it.
//!
//! A recorder writes down what one run of the command asks of the disk. What a SIGKILL after any of these calls leaves
//! is then made anew, data directory and store, and looked at: the volumes hold exactly what was there before the
//! command or what is there after it, never less than what was answered; the same holds for somebody who has never
//! seen them; and the same command, run again, ends where an undisturbed run does.
//!
//! And a data directory is copied while a program works in it, file by file, and then used beside the original.
//!
//! `QUIRE_ROUNDS` sets how many steps of each command are looked at (an even sample of all that change anything on the
//! disk; a large number means all of them) and how many copies are made, `QUIRE_SEED` replays the sample. What a test
//! fails on is kept in `target/tmp/steps-<command>`.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)] // helpers of tests may panic like tests

mod case;
mod commit;
mod model;
mod names;
mod replicate;
mod trial;
mod twice;
mod view;
