//! The table: measured, target, ratio.

use std::collections::BTreeMap;

use crate::Metrics;
use crate::contender::{Contender, PLAIN, PLAIN_SYNCED, QUIRE, QUIRE_SYNCED};

/// What a value is held against.
enum Target {
    /// At least this multiple of plain SQLite's value.
    OfPlain(f64),
    /// At most this value.
    AtMost(f64),
    /// At least this value.
    AtLeast(f64),
}

struct Row {
    title: &'static str,
    metric: &'static str,
    synced: bool,
    target: Target,
}

const fn row(title: &'static str, metric: &'static str, synced: bool, target: Target) -> Row {
    Row { title, metric, synced, target }
}

/// What a release is held to. Figures for 1,000,000 rows.
const ROWS: [Row; 28] = [
    row("one-row commits, not synced, 1/s", "commits/s", false, Target::OfPlain(1.0)),
    row("one-row commits, synced, 1/s", "commits/s", true, Target::OfPlain(1.3)),
    row("bulk insert in one transaction, rows/s", "bulk rows/s", false, Target::OfPlain(1.1)),
    row("  its peak memory, MiB", "bulk peak MiB", false, Target::AtMost(128.0)),
    row("  local disk after it / database", "bulk disk", false, Target::AtMost(1.1)),
    row("open and read one row, ms", "open ms", false, Target::AtMost(10.0)),
    row("random lookups, warm, small cache, 1/s", "lookups/s", false, Target::OfPlain(1.0)),
    row("full scan, warm, small cache, MiB/s", "scan MiB/s", false, Target::OfPlain(1.0)),
    row("8 reading threads beside a writer / alone", "reads beside a writer", false, Target::AtLeast(0.9)),
    row("open after a crash, 64 MiB to replay, ms", "recover ms", false, Target::AtMost(100.0)),
    row("one-row updates of 1,000 rows: disk beyond 2x, MiB", "churn MiB", false, Target::AtMost(64.0)),
    row("push of everything, s (S3, no latency)", "push s", false, Target::AtMost(1.1)),
    row("  its peak memory, MiB", "push peak MiB", false, Target::AtMost(96.0)),
    row("  sent, KiB", "push KiB out", false, Target::AtMost(39.0 * 1024.0)),
    row("push of a one-row update, ms (S3, 30 ms each request)", "small push ms", false, Target::AtMost(35.0)),
    row("  requests", "small push requests", false, Target::AtMost(1.0)),
    row("  sent, KiB", "small push KiB out", false, Target::AtMost(1600.0 / 1024.0)),
    row("empty replica: open and first row, ms (30 ms)", "first row ms", false, Target::AtMost(120.0)),
    row("  requests", "first row requests", false, Target::AtMost(4.0)),
    row("  fetched, KiB", "first row KiB in", false, Target::AtMost(256.0)),
    row("empty replica: 1,000 random lookups, s (30 ms)", "cold lookups s", false, Target::AtMost(2.5)),
    row("  fetched, KiB", "cold lookups KiB in", false, Target::AtMost(40.0 * 1024.0)),
    row("empty replica: full scan, MiB/s (30 ms)", "cold scan MiB/s", false, Target::AtLeast(80.0)),
    row("empty replica: hydrate, MiB/s (30 ms)", "hydrate MiB/s", false, Target::AtLeast(200.0)),
    row("catch up with 1,000 pushes and read, ms (30 ms)", "catch up ms", false, Target::AtMost(400.0)),
    row("  requests", "catch up requests", false, Target::AtMost(150.0)),
    row("  fetched, KiB", "catch up KiB in", false, Target::AtMost(256.0)),
    row("empty replica after them: first row, ms (30 ms)", "late first row ms", false, Target::AtMost(120.0)),
];

/// The median of each metric over several runs.
pub(crate) fn median(runs: &[Metrics]) -> Metrics {
    let names = runs.first().map(Metrics::keys).into_iter().flatten();
    let middle = |name: &String| {
        let mut values: Vec<f64> = runs.iter().filter_map(|run| run.get(name)).copied().collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    names.map(|name| (name.clone(), middle(name))).collect()
}

/// Prints the table, with a column for each peer at its end.
pub(crate) fn print(contenders: &[Contender], medians: &BTreeMap<String, Metrics>) {
    let standard = [PLAIN, PLAIN_SYNCED, QUIRE, QUIRE_SYNCED];
    let peers: Vec<&str> =
        contenders.iter().map(|contender| contender.name.as_str()).filter(|name| !standard.contains(name)).collect();
    let cell = |name: &str, metric: &str| medians.get(name).and_then(|metrics| metrics.get(metric)).copied();
    print!("\n{:<54}{:>12}{:>12}{:>8}{:>10}", "", "plain", "quire", "ratio", "target");
    peers.iter().for_each(|peer| print!("{peer:>14}"));
    println!();
    for row in &ROWS {
        let (plain, quire) = if row.synced { (PLAIN_SYNCED, QUIRE_SYNCED) } else { (PLAIN, QUIRE) };
        let (plain, quire) = (cell(plain, row.metric), cell(quire, row.metric));
        let ratio = plain.zip(quire).map(|(plain, quire)| quire / plain);
        let (target, reached) = match row.target {
            Target::OfPlain(least) => (format!(">= {least}x"), ratio.map(|ratio| ratio >= least)),
            Target::AtMost(most) => (format!("<= {most}"), quire.map(|quire| quire <= most)),
            Target::AtLeast(least) => (format!(">= {least}"), quire.map(|quire| quire >= least)),
        };
        print!("{:<54}{:>12}{:>12}{:>8}{target:>10}", row.title, number(plain), number(quire), number(ratio));
        peers.iter().for_each(|peer| print!("{:>14}", number(cell(peer, row.metric))));
        println!("{}", if reached == Some(false) { "  missed" } else { "" });
    }
}

/// Three figures that matter; nothing where nothing was measured.
fn number(value: Option<f64>) -> String {
    match value {
        None => String::new(),
        Some(value) if value >= 100.0 => format!("{value:.0}"),
        Some(value) if value >= 10.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_value_of_each_metric() {
        let run = |a: f64, b: f64| Metrics::from([("a".to_owned(), a), ("b".to_owned(), b)]);
        let median = median(&[run(3.0, 1.0), run(1.0, 9.0), run(2.0, 5.0)]);
        assert_eq!(median, run(2.0, 5.0));
    }

    #[test]
    fn numbers_keep_three_figures() {
        assert_eq!(number(Some(1234.5)), "1234");
        assert_eq!(number(Some(12.345)), "12.3");
        assert_eq!(number(Some(0.123)), "0.12");
        assert_eq!(number(None), "");
    }
}
