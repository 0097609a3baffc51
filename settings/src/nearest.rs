//! What a misspelt name was probably meant to be.

/// The candidate that `name` most likely misspells, if any is near enough: up
/// to a third of its letters may be wrong, missing, extra or swapped. Or else
/// the one that has words too many or too few.
pub(crate) fn nearest(name: &str, candidates: impl IntoIterator<Item = &'static str>) -> Option<&'static str> {
    let name = name.to_lowercase().replace('-', "_");
    let candidates: Vec<_> = candidates.into_iter().map(|candidate| (candidate.to_lowercase(), candidate)).collect();
    let misspelt = candidates
        .iter()
        .map(|(lower, candidate)| (strsim::osa_distance(&name, lower), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len().div_ceil(3).min(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| *candidate);
    let is_longer = |lower: &str| name.starts_with(lower) || has_words(&name, lower);
    // Of several the longest has most in common with the name.
    let longer = || candidates.iter().filter(|(lower, _)| is_longer(lower)).max_by_key(|(lower, _)| lower.len());
    let shorter = || candidates.iter().find(|(lower, _)| has_words(lower, &name));
    misspelt.or_else(|| longer().or_else(shorter).map(|(_, candidate)| *candidate))
}

/// Whether all words of `some` stand together in `name`.
fn has_words(name: &str, some: &str) -> bool {
    format!("_{name}_").contains(&format!("_{some}_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_finds_its_word_and_another_word_finds_none() {
        let known = ["data_dir", "store", "sync", "cache_size", "token", "client_cert", "log"];
        for (typed, meant) in [
            ("sotre", Some("store")),
            ("cachesize", Some("cache_size")),
            ("cache-size", Some("cache_size")),
            ("Sync", Some("sync")),
            ("logs", Some("log")),
            ("cache", Some("cache_size")),
            ("data", Some("data_dir")),
            ("sync_mode", Some("sync")),
            ("log_level", Some("log")),
            ("storeurl", Some("store")),
            ("my_data_dir", Some("data_dir")),
            ("colour", None),
            ("catalog", None),
            ("s", None),
            ("", None),
        ] {
            assert_eq!(nearest(typed, known), meant, "{typed}");
        }
    }
}
