//! Simulated clients of one store, and a network between them that loses,
//! delays, reorders and damages what goes through it.
//!
//! Everything below is the real thing: engines on data directories, metastore,
//! pagestore, the bucket with its retries. Only the last layer ([`Layer`], over
//! whatever object store a bucket has) and the clock are made here. One seed
//! makes an [`Episode`]: clients, volumes, and a list of steps; running it
//! checks each step against plain maps of pages and against the store's own
//! log. A violation is a panic; [`shortest`] drops steps from the list for as
//! long as it still comes.
//!
//! Where to begin reading: `step.rs` is what clients do, `network.rs` what
//! happens to their requests, `world.rs` how a step is made, `client.rs` and
//! `history.rs` what must hold afterwards.
//!
//! Test-only: nothing here is part of Quire, and nothing imports it.

mod branch;
mod care;
mod client;
mod content;
mod disk;
mod episode;
mod fault;
mod flight;
mod heal;
mod history;
mod judge;
mod layer;
mod ledger;
mod network;
mod shrink;
mod step;
mod world;

pub use client::Events;
pub use disk::scratch;
pub use episode::{Episode, Report, Setup};
pub use fault::{Fault, Tally};
pub use layer::Layer;
pub use network::{Hold, Link, Network, Progress, Treason, Weather, is_of_the_network};
pub use shrink::{Failure, attempt, shortest};
pub use step::{Action, Pause, Step};

/// A number from the environment, for runs that are longer than the usual.
pub fn setting(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap_or_else(|e| panic!("{variable}={text}: {e}")))
}

/// Scatters the bits of a number (the finalizer of SplitMix64), so that the
/// seeds of parts, made from a run's seed and a count, have nothing in common.
pub fn mix(n: u64) -> u64 {
    let n = (n ^ n >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let n = (n ^ n >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    n ^ n >> 31
}
