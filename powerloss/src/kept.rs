//! Keeping what a test has failed on.

use std::path::PathBuf;

use crate::image::Image;

/// Keeps the disk at which a test looks, if the test panics meanwhile.
pub struct Kept<'a> {
    /// Where to.
    pub folder: PathBuf,
    /// What it holds.
    pub image: &'a Image,
    /// After how many events it held that.
    pub events: usize,
}

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let written = self.image.write(&self.folder);
            println!("after {} events this was left: {} ({written:?})", self.events, self.folder.display());
        }
    }
}
