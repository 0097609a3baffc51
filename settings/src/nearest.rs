//! What a misspelt name was probably meant to be.

/// The candidate that `name` most likely misspells, if any is near enough: up
/// to a third of its letters may be wrong, missing, extra or swapped.
pub(crate) fn nearest(name: &str, candidates: impl IntoIterator<Item = &'static str>) -> Option<&'static str> {
    let name = name.to_lowercase().replace('-', "_");
    candidates
        .into_iter()
        .map(|candidate| (strsim::osa_distance(&name, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len().div_ceil(3).min(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
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
            ("colour", None),
            ("s", None),
        ] {
            assert_eq!(nearest(typed, known), meant, "{typed}");
        }
    }
}
