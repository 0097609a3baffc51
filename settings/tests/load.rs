//! Where settings come from, and what wrong ones say.
#![allow(clippy::unwrap_used)] // helpers of tests may panic like tests

use std::path::Path;
use std::time::Duration;

use quire_engine::SyncMode;
use quire_proto::Error;
use quire_settings::{Key, Overrides, Place, Settings, Source, load_from};

/// A process with this environment, between two folders for `quire.toml`.
struct Process {
    root: tempfile::TempDir,
    place: Place,
}

fn process(env: &[(&str, &str)]) -> Process {
    let root = tempfile::tempdir().unwrap();
    let folder = |name: &str| {
        let path = root.path().join(name);
        std::fs::create_dir(&path).unwrap();
        path
    };
    let place = Place {
        env: env.iter().map(|(name, value)| (name.into(), value.into())).collect(),
        folder: folder("here"),
        config_folder: Some(folder("config")),
        data_folder: Some(root.path().join("data/quire")),
    };
    Process { root, place }
}

impl Process {
    fn here(self, toml: &str) -> Self {
        std::fs::write(self.place.folder.join("quire.toml"), toml).unwrap();
        self
    }

    fn platform(self, toml: &str) -> Self {
        std::fs::write(self.root.path().join("config/quire.toml"), toml).unwrap();
        self
    }

    fn load(&self) -> Settings {
        load_from(&Overrides::default(), &self.place).unwrap()
    }

    fn problem(&self) -> Error {
        load_from(&Overrides::default(), &self.place).unwrap_err()
    }
}

fn source(settings: &Settings, key: Key) -> Source {
    settings.explain().into_iter().find(|explained| explained.key == key).unwrap().source
}

#[test]
fn without_any_setting_the_defaults_hold() {
    let process = process(&[]);
    let settings = process.load();
    let data_dir = process.root.path().join("data/quire");
    assert_eq!(settings.data_dir, data_dir);
    assert_eq!(settings.store.as_str(), format!("file://{}/store", data_dir.display()));
    assert_eq!(settings.sync, SyncMode::Manual);
    assert_eq!(settings.cache_size, 2 << 30);
    assert_eq!(settings.token, None);
    assert_eq!(settings.log, "warn");
    assert!(settings.explain().iter().all(|explained| explained.source == Source::Default));
}

#[test]
fn a_flag_beats_the_environment_beats_the_folder_beats_the_platform() {
    let base = || {
        process(&[("QUIRE_STORE", "s3://environment"), ("QUIRE_SYNC", "commit")])
            .here("store = 's3://here'\nsync = '1s'\nlog = 'info'")
            .platform("store = 's3://platform'\nsync = '2s'\nlog = 'debug'\ncache_size = 1048576")
    };
    let process = base();
    let flags = Overrides::default().with(Key::Store, Some("s3://flag"), Source::Flag("--store")).with(
        Key::Sync,
        None,
        Source::Flag("--sync"),
    );
    let settings = load_from(&flags, &process.place).unwrap();

    assert_eq!(settings.store.as_str(), "s3://flag");
    assert_eq!(source(&settings, Key::Store), Source::Flag("--store"));
    assert_eq!(settings.sync, SyncMode::Commit);
    assert_eq!(source(&settings, Key::Sync), Source::Environment("QUIRE_SYNC"));
    assert_eq!(settings.log, "info");
    assert_eq!(source(&settings, Key::Log), Source::File(process.place.folder.join("quire.toml")));
    assert_eq!(settings.cache_size, 1 << 20);
    assert_eq!(source(&settings, Key::CacheSize), Source::File(process.root.path().join("config/quire.toml")));
}

#[test]
fn a_relative_data_dir_starts_where_it_is_written() {
    let from_env = process(&[("QUIRE_DATA_DIR", "replicas")]);
    assert_eq!(from_env.load().data_dir, from_env.place.folder.join("replicas"));
    let from_file = process(&[]).platform("data_dir = 'replicas'");
    assert_eq!(from_file.load().data_dir, from_file.root.path().join("config/replicas"));
    assert!(from_file.load().store.as_str().ends_with("/config/replicas/store"));
}

#[test]
fn a_path_may_begin_with_the_home_of_the_user() {
    let process = process(&[("HOME", "/home/ada")]).here("data_dir = '~/q'\nclient_cert = '~ada/cert.pem'");
    let settings = process.load();
    assert_eq!(settings.data_dir, Path::new("/home/ada/q"));
    assert_eq!(settings.client_cert, Some(process.place.folder.join("~ada/cert.pem")));
    let homeless = self::process(&[]).here("data_dir = '~/q'").problem();
    assert!(homeless.message().contains("no home"), "{homeless}");
}

#[test]
fn a_wrong_value_names_its_setting_its_source_and_what_is_allowed() {
    for (name, value, setting, allowed) in [
        ("QUIRE_STORE", "ftp://x", "store", "s3://bucket/prefix"),
        ("QUIRE_SYNC", "often", "sync", "manual, commit"),
        ("QUIRE_CACHE_SIZE", "large", "cache_size", "512MiB"),
        ("QUIRE_CACHE_SIZE", "0", "cache_size", "at least 1MiB"),
        ("QUIRE_CACHE_SIZE", "-1", "cache_size", "at least 1MiB"),
        ("QUIRE_TOKEN", "two words", "token", "without white space"),
        ("QUIRE_DATA_DIR", "", "data_dir", "folder"),
        ("QUIRE_STORE", "", "store", "file:///path"),
    ] {
        let error = process(&[(name, value)]).problem();
        let expected = format!("setting {setting} (environment variable {name}): ");
        assert!(error.message().starts_with(&expected), "{name}={value}: {error}");
        assert!(error.remedy().is_some_and(|remedy| remedy.contains(allowed)), "{name}={value}: {error:?}");
    }
    let error = process(&[]).here("sync = 5").problem();
    assert!(error.message().contains("here/quire.toml): a text is needed, not integer"), "{error}");
}

#[test]
fn a_misspelt_variable_is_an_error_and_a_foreign_one_is_not() {
    let error = process(&[("QUIRE_SOTRE", "memory://")]).problem();
    assert!(error.message().contains("QUIRE_SOTRE"), "{error}");
    assert_eq!(error.remedy(), Some("Did you mean QUIRE_STORE?"));
    for (name, meant) in [
        ("QUIRE_CACHE", "QUIRE_CACHE_SIZE"),
        ("QUIRE_DATA", "QUIRE_DATA_DIR"),
        ("QUIRE_SYNC_MODE", "QUIRE_SYNC"),
        ("QUIRE_LOG_LEVEL", "QUIRE_LOG"),
        ("QUIRE_TOKEN_FILE_PATH", "QUIRE_TOKEN_FILE"),
    ] {
        assert_eq!(
            process(&[(name, "1")]).problem().remedy(),
            Some(format!("Did you mean {meant}?").as_str()),
            "{name}"
        );
    }
    process(&[("QUIRE_DEFAULT_VFS", "1"), ("QUIRKS", "on"), ("QUIRE_TEST_STORE", "x")]).load();
    for name in
        ["QUIRE_STORE_SERVICE_HOST", "QUIRE_STORE_PORT", "QUIRE_LOG_PORT_80_TCP_ADDR", "QUIRE_STORE_SERVICE_PORT"]
    {
        process(&[(name, "10.0.0.1")]).load();
    }
    let of_tests = "SEED STEPS ROUNDS KILLS COMMITS PUSHES PAGES HISTORY TRACE THREADS MEMORY_MIB MEMORY_LIMIT_MIB";
    for name in of_tests.split(' ') {
        process(&[(format!("QUIRE_{name}").as_str(), "7")]).load();
    }
}

#[test]
fn a_quire_toml_that_can_not_be_read_is_an_error_that_names_it() {
    let process = process(&[]);
    std::fs::create_dir(process.place.folder.join("quire.toml")).unwrap();
    assert!(process.problem().to_string().contains("here/quire.toml"));
}

#[test]
fn a_user_without_a_home_is_told_what_to_set() {
    let mut process = process(&[]);
    process.place.data_folder = None;
    assert!(process.problem().remedy().is_some_and(|remedy| remedy.contains("QUIRE_DATA_DIR")));
}

#[test]
fn a_token_comes_from_a_file_too_and_is_never_shown() {
    let mut process = process(&[("QUIRE_TOKEN_FILE", "token")]).here("token = 'from-toml'");
    std::fs::write(process.place.folder.join("token"), "s3cr3t\n").unwrap();
    let settings = process.load();
    assert_eq!(settings.token.as_ref().unwrap().reveal(), "s3cr3t");
    assert_eq!(source(&settings, Key::Token), Source::Environment("QUIRE_TOKEN_FILE"));
    assert!(!format!("{settings:?} {:?}", settings.explain()).contains("s3cr3t"));

    let flag = Overrides::default().with(Key::Token, Some("flagged"), Source::Flag("--token"));
    assert_eq!(load_from(&flag, &process.place).unwrap().token.unwrap().reveal(), "flagged");

    process.place.env.push(("QUIRE_TOKEN".into(), "other".into()));
    assert!(process.problem().message().contains("both set"));
    process.place.env = vec![("QUIRE_TOKEN_FILE".into(), "missing".into())];
    assert!(process.problem().message().contains("missing"));
}

#[test]
fn sizes_and_durations_are_shown_as_they_are_written() {
    let settings = process(&[("QUIRE_CACHE_SIZE", "512 MiB"), ("QUIRE_SYNC", "90s")]).load();
    assert_eq!(settings.sync, SyncMode::Every(Duration::from_secs(90)));
    let shown: Vec<String> = settings.explain().into_iter().map(|explained| explained.value).collect();
    assert!(shown.contains(&"512MiB".to_owned()) && shown.contains(&"90s".to_owned()), "{shown:?}");
    assert!(Path::new(&shown[0]).is_absolute());
    for size in ["2GB", "2GiB", "1500KiB", "1048577B"] {
        let settings = process(&[("QUIRE_CACHE_SIZE", size)]).load();
        assert!(settings.explain().iter().any(|explained| explained.value == size), "{size}: {:?}", settings.explain());
    }
}
