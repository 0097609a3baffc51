//! Results as they are kept: `benches/results/DATE.json`, and
//! `docs/performance.md`, which is made from them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::contender::{PLAIN, QUIRE};
use crate::{Metrics, report};

/// The values of one run of the benchmarks.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// When it began: UTC, as in RFC 3339.
    pub(crate) date: String,
    pub(crate) machine: String,
    /// The commit of the source, if it is known.
    pub(crate) source: String,
    pub(crate) rows: i64,
    /// For each contender the metrics of each repetition.
    pub(crate) contenders: BTreeMap<String, Vec<Metrics>>,
}

/// The median of each metric over several runs.
pub(crate) fn median(runs: &[Metrics]) -> Metrics {
    let names = runs.iter().flat_map(Metrics::keys);
    let of = |name: &String| middle(runs.iter().filter_map(|run| run.get(name)).copied());
    names.filter_map(|name| Some((name.clone(), of(name)?))).collect()
}

/// The median: of an even number of values the lower of the two in the middle.
pub(crate) fn middle(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len().checked_sub(1)? / 2).copied()
}

/// What the targets are about.
const ROWS: i64 = 1_000_000;

/// What is shown over the size of the database.
const SCALE: [&str; 14] = [
    "bulk rows/s",
    "bulk peak MiB",
    "open ms",
    "lookups/s",
    "scan MiB/s",
    "updates/s",
    "push s",
    "push peak MiB",
    "first row ms",
    "first row KiB in",
    "first-row trips",
    "hydrate MiB/s",
    "hydrate peak MiB",
    "small push ms",
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("results")
}

/// Keeps the results of a run.
pub(crate) fn keep(measured: &Measured) -> Result<()> {
    fs::create_dir_all(folder())?;
    let path = folder().join(format!("{}.json", measured.date.replace(':', "")));
    let text = serde_json::to_string_pretty(measured)? + "\n";
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    println!("\nkept as {}", path.display());
    Ok(())
}

/// Writes `docs/performance.md` from all that is kept.
pub(crate) fn document() -> Result<()> {
    let mut files: Vec<PathBuf> = match fs::read_dir(folder()) {
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?,
        Err(e) => return Err(e).with_context(|| format!("no results in {}", folder().display())),
    };
    files.retain(|path| path.extension().is_some_and(|ext| ext == "json"));
    files.sort();
    let read = |path: &PathBuf| -> Result<Measured> {
        serde_json::from_str(&fs::read_to_string(path)?).with_context(|| format!("{} is damaged", path.display()))
    };
    let all = files.iter().map(read).collect::<Result<Vec<_>>>()?;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/performance.md");
    fs::write(&path, text_of(&all)?).with_context(|| format!("cannot write {}", path.display()))?;
    println!("{} is made from {} results", path.display(), all.len());
    Ok(())
}

/// All repetitions of all results together are what is shown.
fn text_of(all: &[Measured]) -> Result<String> {
    let together = of_rows(all, ROWS);
    ensure!(!together.contenders.is_empty(), "there are no results of {ROWS} rows yet");
    let (rows, met) = report::met(&together);
    let mut text = String::from(
        "# Performance\n\n<!-- Made by `cargo xtask bench --document` from benches/results/. Edit \
         benches/notes.md instead. -->\n\n",
    );
    let _ = writeln!(
        text,
        "Medians over {} runs of `cargo xtask bench --record`, each beside plain SQLite on the same machine: {met} of \
         {rows} targets are met.\n",
        all.iter().filter(|measured| measured.rows == ROWS).count()
    );
    text.push_str("| run | machine | source | rows | repetitions |\n|---|---|---|---|---|\n");
    for Measured { date, machine, source, rows, contenders } in all {
        let repetitions = contenders.values().map(Vec::len).max().unwrap_or(0);
        let _ = writeln!(text, "| {date} | {machine} | {source} | {rows} | {repetitions} |");
    }
    text.push_str("\n## The targets\n\n");
    text.push_str(&report::markdown(&together));
    let with_peers = all.iter().filter(|measured| measured.rows == ROWS && report::has_peers(measured));
    let beside = report::peers_markdown(&together_of(with_peers));
    if !beside.is_empty() {
        let _ = write!(text, "## Beside the peers\n\nEach in the same run, on the same machine.\n\n{beside}\n");
    }
    text.push_str("## Local work beside plain SQLite\n\n");
    text.push_str(&plot(&together));
    text.push_str("## How much the runs differ\n\nThe largest value of each metric over the smallest, of Quire's.\n\n");
    text.push_str(&spread(&together));
    text.push_str(&scale(all));
    text.push_str(&curves(&together));
    let notes = Path::new(env!("CARGO_MANIFEST_DIR")).join("notes.md");
    text.push_str(&fs::read_to_string(notes).unwrap_or_default());
    Ok(text)
}

/// All runs with so many rows, as one.
fn of_rows(all: &[Measured], rows: i64) -> Measured {
    together_of(all.iter().filter(|measured| measured.rows == rows))
}

fn together_of<'a>(runs: impl Iterator<Item = &'a Measured>) -> Measured {
    let mut together = Measured::default();
    for measured in runs {
        for (name, runs) in &measured.contenders {
            together.contenders.entry(name.clone()).or_default().extend(runs.iter().cloned());
        }
    }
    together
}

/// What changes with the size of the database, and by which power of it.
fn scale(all: &[Measured]) -> String {
    let sizes: BTreeSet<i64> = all.iter().map(|measured| measured.rows).collect();
    if sizes.len() < 2 {
        return String::new();
    }
    let runs: Vec<(i64, Metrics)> = sizes
        .iter()
        .map(|rows| (*rows, of_rows(all, *rows).contenders.get(QUIRE).map(|runs| median(runs)).unwrap_or_default()))
        .collect();
    let mut text = String::from(
        "## The size of the database\n\nThe slope is the power of the number of rows by which a value grows: 0 is constant, 1 \
         is in proportion.\n\n| |",
    );
    runs.iter().for_each(|(rows, _)| _ = write!(text, " {rows} rows |"));
    text.push_str(" slope |\n|---|");
    runs.iter().for_each(|_| text.push_str("---|"));
    text.push_str("---|\n");
    for metric in SCALE {
        let values: Vec<(f64, f64)> =
            runs.iter().filter_map(|(rows, run)| Some((*rows as f64, *run.get(metric)?))).collect();
        let _ = write!(text, "| {metric} |");
        for (_, run) in &runs {
            let _ = write!(text, " {} |", run.get(metric).map_or_else(String::new, |value| report::number(*value)));
        }
        let _ = writeln!(text, " {} |", slope(&values).map_or_else(String::new, |slope| format!("{slope:.2}")));
    }
    text.push('\n');
    text
}

/// What changes as there is more of something: the values that are named `VALUE @ NUMBER THINGS`.
fn curves(together: &Measured) -> String {
    let mut curves = BTreeMap::<(String, String), BTreeMap<u64, [Option<f64>; 2]>>::new();
    for (column, contender) in [PLAIN, QUIRE].into_iter().enumerate() {
        let runs = together.contenders.get(contender).map(|runs| median(runs)).unwrap_or_default();
        for (name, measured) in &runs {
            let Some((value, at)) = name.split_once(" @ ") else { continue };
            let Some((number, things)) = at.split_once(' ') else { continue };
            let Ok(number) = number.parse() else { continue };
            curves.entry((things.to_owned(), value.to_owned())).or_default().entry(number).or_default()[column] =
                Some(*measured);
        }
    }
    let mut text = String::new();
    for ((things, value), points) in curves {
        let of = |column: usize| points.values().map(move |values| values[column]);
        let mut is_titled = false;
        for (column, name) in [(1, "Quire"), (0, "plain SQLite")] {
            if of(column).any(|value| value.is_none()) || of(column).flatten().all(|value| value == 0.0) {
                continue;
            }
            if !std::mem::replace(&mut is_titled, true) {
                let _ = writeln!(text, "### {value}, by {things}\n");
            }
            let at: Vec<(f64, f64)> =
                points.iter().filter_map(|(number, values)| Some((*number as f64, values[column]?))).collect();
            let slope = slope(&at).map_or_else(String::new, |slope| format!(", slope {slope:.2}"));
            let numbers: Vec<String> = points.keys().map(|number| format!("\"{number}\"")).collect();
            let values: Vec<String> = of(column).flatten().map(report::number).collect();
            let _ = writeln!(
                text,
                "```mermaid\nxychart-beta\n    title \"{value}, {name}{slope}\"\n    x-axis \"{things}\" [{}]\n    line \
                 [{}]\n```\n",
                numbers.join(", "),
                values.join(", ")
            );
        }
    }
    if text.is_empty() { text } else { format!("## More of something\n\n{text}") }
}

/// The slope of a line through the logarithms of these points, by least squares.
fn slope(points: &[(f64, f64)]) -> Option<f64> {
    let points: Vec<(f64, f64)> = points.iter().filter(|(_, y)| *y > 0.0).map(|(x, y)| (x.ln(), y.ln())).collect();
    let n = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / n;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let along: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    let width: f64 = points.iter().map(|point| (point.0 - x) * (point.0 - x)).sum();
    (points.len() > 1 && width > 0.0).then(|| along / width)
}

/// Ratios to plain SQLite as a bar chart, which GitHub and others draw.
fn plot(together: &Measured) -> String {
    let metrics = ["commits/s", "bulk rows/s", "lookups/s", "scan MiB/s"];
    let ratio = |metric: &&str| report::ratio(together, QUIRE, PLAIN, metric);
    let ratios: Vec<String> = metrics.iter().filter_map(ratio).map(|ratio| format!("{ratio:.2}")).collect();
    let axis: Vec<String> = metrics.iter().map(|metric| format!("\"{metric}\"")).collect();
    let ones = vec!["1"; ratios.len()].join(", ");
    format!(
        "```mermaid\nxychart-beta\n    title \"Quire over plain SQLite; the line is plain SQLite\"\n    x-axis [{}]\n    \
         y-axis \"times\"\n    bar [{}]\n    line [{ones}]\n```\n\n",
        axis.join(", "),
        ratios.join(", ")
    )
}

fn spread(together: &Measured) -> String {
    let Some(runs) = together.contenders.get(QUIRE) else { return String::new() };
    let mut text =
        String::from("| metric | smallest | median | largest | largest / smallest |\n|---|---|---|---|---|\n");
    for (name, median) in median(runs).into_iter().filter(|(name, _)| !name.contains(" @ ")) {
        let values = || runs.iter().filter_map(|run| run.get(&name)).copied();
        let (least, most) = (values().fold(f64::MAX, f64::min), values().fold(0.0, f64::max));
        let ratio = if least > 0.0 { report::number(most / least) } else { String::new() };
        let [least, median, most] = [least, median, most].map(report::number);
        let _ = writeln!(text, "| {name} | {least} | {median} | {most} | {ratio} |");
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slope_is_the_power_by_which_a_value_grows() {
        let of = |power: f64| [1e4_f64, 1e5, 1e6].map(|x| (x, 3.0 * x.powf(power)));
        for power in [-1.0, 0.0, 0.5, 1.0] {
            assert!((slope(&of(power)).unwrap() - power).abs() < 1e-9, "{power}");
        }
        assert_eq!(slope(&of(1.0)[..1]), None);
    }

    #[test]
    fn a_curve_shows_its_values_in_order_with_their_slope() {
        let values = [("a/s @ 10 things", 20.0), ("a/s @ 2 things", 4.0), ("a/s", 1.0), ("b @ 1 thing else", 3.0)];
        let run: Metrics = values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let measured = Measured { contenders: [(QUIRE.to_owned(), vec![run])].into(), ..Measured::default() };
        let text = curves(&measured);
        assert!(text.contains("### a/s, by things\n"), "{text}");
        assert!(text.contains("title \"a/s, Quire, slope 1.00\"\n    x-axis \"things\" [\"2\", \"10\"]"), "{text}");
        assert!(text.contains("line [4.00, 20.0]"), "{text}");
        assert!(!text.contains("plain SQLite"), "{text}");
    }

    #[test]
    fn a_median_is_the_middle_value_of_each_metric() {
        let run = |a: f64, b: f64| Metrics::from([("a".to_owned(), a), ("b".to_owned(), b)]);
        assert_eq!(median(&[run(3.0, 1.0), run(1.0, 9.0), run(2.0, 5.0)]), run(2.0, 5.0));
        assert_eq!(median(&[run(3.0, 1.0), run(1.0, 9.0)]), run(1.0, 1.0));
    }
}
