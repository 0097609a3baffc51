//! The tables: measured, target, ratio.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::Metrics;
use crate::contender::{PLAIN, PLAIN_SYNCED, QUIRE, QUIRE_SYNCED};
use crate::results::{Measured, median, middle};

/// What a value is held against.
#[derive(Clone, Copy)]
enum Target {
    /// At least this multiple of plain SQLite's value.
    OfPlain(f64),
    /// At most this value.
    AtMost(f64),
    /// At least this value.
    AtLeast(f64),
    /// At most this multiple of another metric.
    Within(f64, &'static str),
}

struct Row {
    title: &'static str,
    metric: &'static str,
    synced: bool,
    target: Target,
}

const fn row(title: &'static str, metric: &'static str, target: Target) -> Row {
    Row { title, metric, synced: false, target }
}

use Target::{AtLeast, AtMost, OfPlain, Within};

/// What a release is held to, table by table. Figures for 1,000,000 rows.
const TABLES: [(&str, &[Row]); 6] = [
    (
        "Local work",
        &[
            row("one-row commits, not synced, 1/s", "commits/s", OfPlain(1.0)),
            Row { synced: true, ..row("one-row commits, synced, 1/s", "commits/s", OfPlain(1.3)) },
            row("bulk insert in one transaction, rows/s", "bulk rows/s", OfPlain(1.1)),
            row("  its peak memory, MiB", "bulk peak MiB", AtMost(128.0)),
            row("  local disk after it / database", "bulk disk", AtMost(1.1)),
            row("open and read one row, ms", "open ms", AtMost(10.0)),
            row("random lookups, warm, small cache, 1/s", "lookups/s", OfPlain(1.0)),
            row("full scan, warm, small cache, MiB/s", "scan MiB/s", OfPlain(1.0)),
            row("one-row updates all over it, not synced, 1/s", "updates/s", OfPlain(1.0)),
            row("8 reading threads beside a writer / alone", "reads beside a writer", AtLeast(0.9)),
            row("open after a crash, 64 MiB to replay, ms", "recover ms", AtMost(100.0)),
            row("one-row updates of 1,000 rows: disk beyond 2x, MiB", "churn MiB", AtMost(64.0)),
        ],
    ),
    (
        "Push, to S3",
        &[
            row("push of everything, s (no latency)", "push s", AtMost(1.1)),
            row("  its peak memory, MiB", "push peak MiB", AtMost(96.0)),
            row("  sent, KiB", "push KiB out", AtMost(39.0 * 1024.0)),
            row("push of a one-row update, ms (30 ms a request)", "small push ms", AtMost(35.0)),
            row("  requests", "small push requests", AtMost(1.0)),
            row("  sent, KiB", "small push KiB out", AtMost(1600.0 / 1024.0)),
        ],
    ),
    (
        "Empty replica on S3, 30 ms a request",
        &[
            row("open by name and first row, ms", "first row ms", AtMost(120.0)),
            row("  round trips, one after the other", "first-row trips", AtMost(3.0)),
            row("  fetched, KiB", "first row KiB in", AtMost(256.0)),
            row("1,000 random lookups, s", "cold lookups s", AtMost(2.5)),
            row("  fetched, KiB", "cold lookups KiB in", AtMost(40.0 * 1024.0)),
            row("full scan, MiB/s", "cold scan MiB/s", AtLeast(80.0)),
            row("hydrate, MiB/s", "hydrate MiB/s", AtLeast(200.0)),
            row("catch up with 1,000 pushes and read, ms", "catch up ms", AtMost(400.0)),
            row("  round trips, one after the other", "catch-up trips", AtMost(4.0)),
            row("  requests", "catch up requests", AtMost(150.0)),
            row("  fetched, KiB", "catch up KiB in", AtMost(256.0)),
            row("first row after those pushes, ms", "late first row ms", AtMost(120.0)),
            row("  round trips, one after the other", "late-first-row trips", AtMost(3.0)),
        ],
    ),
    (
        "The same through a server beside the store, at the end of a line of 30 ms there and back",
        &[
            row("open by name and first row, ms", "served first row ms", AtMost(80.0)),
            row("  fetched, KiB", "served first row KiB in", AtMost(256.0)),
            row("1,000 random lookups, s", "served cold lookups s", AtMost(2.5)),
            row("  fetched, KiB", "served cold lookups KiB in", AtMost(40.0 * 1024.0)),
            row("full scan, MiB/s", "served cold scan MiB/s", AtLeast(80.0)),
            row("hydrate, MiB/s", "served hydrate MiB/s", AtLeast(200.0)),
            row("catch up with 1,000 pushes and read, ms", "served catch up ms", AtMost(400.0)),
            row("  fetched, KiB", "served catch up KiB in", AtMost(256.0)),
            row("first row after those pushes, ms", "served late first row ms", AtMost(80.0)),
            row("push of a one-row update, ms", "served small push ms", AtMost(35.0)),
            row("  sent, KiB", "served small push KiB out", AtMost(1600.0 / 1024.0)),
        ],
    ),
    (
        "A social database (100 k users, 1 M posts, 3 M likes), each question on an empty replica that has just opened, 30 ms a request",
        &[
            row("open and read the schema, ms", "social Open ms", AtMost(95.0)),
            row("  fetched, KiB", "social Open KiB in", AtMost(256.0)),
            row("one row by key, ms", "social Row ms", AtMost(70.0)),
            row("  fetched, KiB", "social Row KiB in", AtMost(0.15 * 1024.0)),
            row("one row by key, joined, ms", "social Join ms", AtMost(105.0)),
            row("  fetched, KiB", "social Join KiB in", AtMost(0.3 * 1024.0)),
            row("the last 20 posts of a user, ms", "social LastPosts ms", AtMost(350.0)),
            row("  fetched, KiB", "social LastPosts KiB in", AtMost(5.0 * 1024.0)),
            row("50 scattered users by an index, ms", "social Scattered ms", AtMost(600.0)),
            row("  fetched, KiB", "social Scattered KiB in", AtMost(15.0 * 1024.0)),
            row("a join of four tables, ms", "social FourTables ms", AtMost(900.0)),
            row("  fetched, KiB", "social FourTables KiB in", AtMost(20.0 * 1024.0)),
            row("two index searches joined, ms", "social TwoIndexes ms", AtMost(600.0)),
            row("  fetched, KiB", "social TwoIndexes KiB in", AtMost(35.0 * 1024.0)),
            row("a filter over the whole table, ms", "social Filter ms", AtMost(700.0)),
        ],
    ),
    (
        "The same on a link of 100 Mbit/s: how many times as long",
        &[
            row("open and read the schema", "slow Open ms", Within(2.0, "social Open ms")),
            row("one row by key", "slow Row ms", Within(2.0, "social Row ms")),
            row("one row by key, joined", "slow Join ms", Within(2.0, "social Join ms")),
            row("the last 20 posts of a user", "slow LastPosts ms", Within(2.0, "social LastPosts ms")),
            row("50 scattered users by an index", "slow Scattered ms", Within(2.0, "social Scattered ms")),
            row("a join of four tables", "slow FourTables ms", Within(2.0, "social FourTables ms")),
            row("two index searches joined", "slow TwoIndexes ms", Within(2.0, "social TwoIndexes ms")),
            row("a filter over the whole table", "slow Filter ms", Within(2.0, "social Filter ms")),
        ],
    ),
];

/// A row with its figures.
struct Line {
    title: &'static str,
    plain: Option<f64>,
    quire: f64,
    /// To plain SQLite.
    ratio: Option<f64>,
    target: String,
    is_met: Option<bool>,
    peers: Vec<Option<f64>>,
}

/// The median of a metric's ratios, each of two values that were measured in the same repetition: machines are not always
/// as fast.
pub(crate) fn ratio(measured: &Measured, quire: &str, plain: &str, metric: &str) -> Option<f64> {
    let runs = |name: &str| measured.contenders.get(name).map(Vec::as_slice).unwrap_or_default();
    let of = |(quire, plain): (&Metrics, &Metrics)| Some(quire.get(metric)? / plain.get(metric)?);
    middle(runs(quire).iter().zip(runs(plain)).filter_map(of))
}

/// The tables with what was measured.
fn tables(measured: &Measured) -> Vec<(&'static str, Vec<Line>)> {
    let medians: BTreeMap<&str, Metrics> =
        measured.contenders.iter().map(|(name, runs)| (name.as_str(), median(runs))).collect();
    let cell = |name: &str, metric: &str| medians.get(name).and_then(|metrics| metrics.get(metric)).copied();
    let line = |row: &Row| {
        let (plain, quire) = if row.synced { (PLAIN_SYNCED, QUIRE_SYNCED) } else { (PLAIN, QUIRE) };
        let of = |name| match row.target {
            Within(_, other) => Some(cell(name, row.metric)? / cell(name, other)?),
            _ => cell(name, row.metric),
        };
        let ratio = ratio(measured, quire, plain, row.metric);
        let (plain, quire) = (of(plain), of(quire)?);
        let (target, is_met) = match row.target {
            OfPlain(least) => (format!(">= {least}x"), ratio.map(|ratio| ratio >= least)),
            AtMost(most) | Within(most, _) => (format!("<= {}", number(most)), Some(quire <= most)),
            AtLeast(least) => (format!(">= {}", number(least)), Some(quire >= least)),
        };
        // What a peer does is not known to be synced.
        let peers = peers(measured).map(|peer| of(peer).filter(|_| !row.synced)).collect();
        Some(Line { title: row.title, plain, quire, ratio, target, is_met, peers })
    };
    let tables = TABLES.iter().map(|(title, rows)| (*title, rows.iter().filter_map(line).collect::<Vec<_>>()));
    tables.filter(|(_, lines)| !lines.is_empty()).collect()
}

pub(crate) fn has_peers(measured: &Measured) -> bool {
    peers(measured).next().is_some()
}

fn peers(measured: &Measured) -> impl Iterator<Item = &str> {
    let standard = [PLAIN, PLAIN_SYNCED, QUIRE, QUIRE_SYNCED];
    measured.contenders.keys().map(String::as_str).filter(move |name| !standard.contains(name))
}

/// Prints the tables, with a column for each peer at their end.
pub(crate) fn print(measured: &Measured) {
    for (title, lines) in tables(measured) {
        print!("\n{title}\n{:<54}{:>12}{:>12}{:>8}{:>10}", "", "plain", "quire", "ratio", "target");
        peers(measured).for_each(|peer| print!("{peer:>14}"));
        println!();
        for line in lines {
            let Line { title, plain, quire, ratio, target, is_met, peers } = line;
            print!("{title:<54}{:>12}{:>12}{:>8}{target:>10}", cell(plain), number(quire), cell(ratio));
            peers.into_iter().for_each(|peer| print!("{:>14}", cell(peer)));
            println!("{}", if is_met == Some(false) { "  missed" } else { "" });
        }
    }
}

/// The tables in Markdown.
pub(crate) fn markdown(measured: &Measured) -> String {
    let mut text = String::new();
    for (title, lines) in tables(measured) {
        let _ =
            writeln!(text, "### {title}\n\n| | plain SQLite | Quire | ratio | target | |\n|---|---|---|---|---|---|");
        for Line { title, plain, quire, ratio, target, is_met, .. } in lines {
            let met = is_met.map_or("", |met| if met { "met" } else { "**missed**" });
            let title = title.trim_start_matches("  ").trim();
            let _ = writeln!(
                text,
                "| {title} | {} | {} | {} | {} | {met} |",
                cell(plain),
                number(quire),
                cell(ratio),
                target.replace(">=", "≥").replace("<=", "≤")
            );
        }
        text.push('\n');
    }
    text
}

/// What peers were measured for, beside Quire in the same runs, in Markdown; empty without peers.
pub(crate) fn peers_markdown(measured: &Measured) -> String {
    let names: Vec<&str> = peers(measured).collect();
    let rows = tables(measured).into_iter().flat_map(|(title, lines)| lines.into_iter().map(move |line| (title, line)));
    let mut text = String::new();
    let mut of_whom = "";
    for (title, line) in rows.filter(|(_, line)| line.peers.iter().any(Option::is_some)) {
        if of_whom.is_empty() {
            let _ = write!(text, "| | plain SQLite | Quire |");
            names.iter().for_each(|name| _ = write!(text, " {name} |"));
            let _ = writeln!(text, "\n|---|---|---|{}", "---|".repeat(names.len()));
        }
        if of_whom != title {
            let _ = writeln!(text, "| **{title}** | | |{}", " |".repeat(names.len()));
            of_whom = title;
        }
        let _ = write!(text, "| {} | {} | {} |", line.title.trim_start(), cell(line.plain), number(line.quire));
        line.peers.iter().for_each(|peer| _ = write!(text, " {} |", cell(*peer)));
        text.push('\n');
    }
    text
}

/// How many rows there are, and how many of them are met.
pub(crate) fn met(measured: &Measured) -> (usize, usize) {
    let lines: Vec<Option<bool>> =
        tables(measured).into_iter().flat_map(|(_, lines)| lines).map(|line| line.is_met).collect();
    (lines.len(), lines.iter().filter(|met| **met == Some(true)).count())
}

fn cell(value: Option<f64>) -> String {
    value.map_or_else(String::new, number)
}

/// Three figures that matter.
pub(crate) fn number(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_three_figures() {
        assert_eq!([1234.5, 12.345, 0.123].map(number), ["1234", "12.3", "0.12"]);
    }

    #[test]
    fn a_row_is_met_or_missed_by_its_median() {
        let run = |commits: f64, slow: f64| {
            let metrics = [("commits/s", commits), ("slow Row ms", slow), ("social Row ms", 10.0)];
            metrics.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<Metrics>()
        };
        let contenders = [
            (PLAIN.to_owned(), vec![run(100.0, 1.0); 3]),
            (QUIRE.to_owned(), vec![run(90.0, 30.0), run(110.0, 19.0), run(120.0, 11.0)]),
        ];
        let measured = Measured { contenders: contenders.into(), ..Measured::default() };
        assert_eq!(met(&measured), (3, 3), "{}", markdown(&measured));
        assert!(markdown(&measured).contains("| one-row commits, not synced, 1/s | 100 | 110 | 1.10 | ≥ 1x | met |"));
        assert!(markdown(&measured).contains("| one row by key | 0.10 | 1.90 |"));
        assert_eq!(peers_markdown(&measured), "");
    }

    #[test]
    fn a_ratio_is_of_values_of_the_same_repetition() {
        let run = |commits: f64| Metrics::from([("commits/s".to_owned(), commits)]);
        // The machine was half as fast the second time, and a tenth the third time.
        let contenders = [
            (PLAIN.to_owned(), vec![run(100.0), run(50.0), run(10.0)]),
            (QUIRE.to_owned(), vec![run(110.0), run(60.0), run(9.0)]),
            ("peer 1".to_owned(), vec![run(30.0)]),
        ];
        let measured = Measured { contenders: contenders.into(), ..Measured::default() };
        assert!(markdown(&measured).contains("| one-row commits, not synced, 1/s | 50.0 | 60.0 | 1.10 | ≥ 1x | met |"));
        let beside = peers_markdown(&measured);
        assert!(
            beside.contains("| | plain SQLite | Quire | peer 1 |\n|---|---|---|---|\n| **Local work** | | | |"),
            "{beside}"
        );
        assert!(beside.contains("| one-row commits, not synced, 1/s | 50.0 | 60.0 | 30.0 |"), "{beside}");
    }
}
