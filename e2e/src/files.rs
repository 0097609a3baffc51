//! Files and their names.

use std::fs;
use std::path::{Path, PathBuf};

/// All files below a folder, in order.
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_below(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// A path as a word of a command line.
pub fn text_of(path: &Path) -> &str {
    path.to_str().unwrap()
}
