//! Random seeds that replay.

/// The seed of a random test: `QUIRE_SEED` if it is set, else a fresh one. It
/// is printed, and the test harness shows it if the test fails.
pub fn seed() -> u64 {
    let seed = match std::env::var("QUIRE_SEED") {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("QUIRE_SEED={text} is not a number")),
        Err(_) => rand::random(),
    };
    println!("replay with QUIRE_SEED={seed}");
    seed
}
