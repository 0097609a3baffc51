//! Settings open an engine on what the store's URL names.
#![allow(clippy::unwrap_used)] // helpers of tests may panic like tests

use std::path::Path;

use quire_engine::{PageIdx, PageSize, VolumeName};
use quire_settings::{Key, Overrides, Place, Settings, Source, load_from, open_engine};

fn settings(data_dir: &Path, store: &str) -> Settings {
    let flags = Overrides::default().with(Key::DataDir, data_dir.to_str(), Source::Flag("--data-dir")).with(
        Key::Store,
        Some(store),
        Source::Flag("--store"),
    );
    load_from(&flags, &Place::default()).unwrap()
}

#[test]
fn two_data_directories_meet_in_a_folder() {
    let root = tempfile::tempdir().unwrap();
    let store = format!("file://{}/store", root.path().display());
    let name = VolumeName::parse("v").unwrap();
    let page = [7; 512];

    let here = open_engine(&settings(&root.path().join("here"), &store)).unwrap();
    let volume = here.volume(&name).unwrap();
    let mut writer = volume.writer(&volume.snapshot(), "test").unwrap();
    writer.set_page_size(PageSize::try_new(512).unwrap()).unwrap();
    writer.write(PageIdx::FIRST, &page).unwrap();
    writer.commit(true).unwrap();
    volume.push().unwrap();
    assert!(here.stats().requests > 0 && here.stats().bytes_out > 0);

    let there = open_engine(&settings(&root.path().join("there"), &store)).unwrap();
    let mut read = [0; 512];
    there.clone_volume(&name, &name).unwrap().snapshot().read(PageIdx::FIRST, &mut read).unwrap();
    assert_eq!(read, page);
}
