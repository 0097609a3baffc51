//! The rows: about 100 bytes each, compressible about as well as real text.

const WORDS: [&str; 32] = [
    "amber", "birch", "cobalt", "delta", "ember", "fjord", "garnet", "harbor", "indigo", "juniper", "kelp", "lagoon",
    "meadow", "nectar", "ochre", "prairie", "quartz", "river", "sable", "tundra", "umber", "violet", "willow", "xenon",
    "yarrow", "zephyr", "basalt", "cedar", "dune", "estuary", "fern", "glacier",
];

/// The schema of the one table.
pub(crate) const SCHEMA: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, x TEXT NOT NULL)";

/// The text of row `id`, exactly 100 bytes, the same in every run.
pub(crate) fn text(id: i64) -> String {
    let mut random = mix(id as u64);
    let mut text = format!("{id:08} {:08x}", random as u32);
    while text.len() < 100 {
        random = mix(random);
        text.push(' ');
        text.push_str(WORDS[(random % WORDS.len() as u64) as usize]);
    }
    text.truncate(100);
    text
}

/// A scattered but repeatable row number in 1..=`rows`.
pub(crate) fn scattered(i: i64, rows: i64) -> i64 {
    (mix(i as u64) >> 1) as i64 % rows + 1
}

/// SplitMix64's output function (Steele, Lea, Flood 2014).
fn mix(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
