//! How micro-benchmarks are measured.

use std::time::Duration;

use criterion::Criterion;

/// Runs micro-benchmarks, with so many samples of each: about a second for one, so that all of them end within minutes.
pub fn measure(samples: usize, benchmarks: impl FnOnce(&mut Criterion)) {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(samples)
        .configure_from_args();
    benchmarks(&mut criterion);
    criterion.final_summary();
}
