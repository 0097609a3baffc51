//! What must hold of any text in the place of a setting, for the fuzzer
//! (`fuzz/` at the root) and for the ordinary tests that replay what it found.

use quire_engine::SyncMode;
use quire_proto::fuzz::Check;

use crate::file::ConfigFile;
use crate::load::{parse_cache_size, show_size};
use crate::sync::show_sync;
use crate::{Key, Source, StoreUrl, Token, parse_duration, parse_sync};

/// Every check with its name.
pub const TARGETS: [Check; 1] = [("setting", setting)];

/// A value that is accepted is shown so that it is read as the same value; a
/// refusal names the setting and what is allowed.
pub fn setting(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    one_value(text);
    let Ok(file) = ConfigFile::parse("/etc/quire.toml".into(), text) else { return };
    for key in Key::ALL {
        if let Some((value, _)) = file.value(key) {
            one_value(value);
        }
    }
}

fn one_value(text: &str) {
    let source = Source::Default;
    let _ = parse_duration(text);
    let _ = Token::parse(text);
    match parse_sync(text, &source) {
        Ok(SyncMode::Every(every)) if every.subsec_nanos() % 1_000_000 != 0 => panic!("{every:?} is no whole number"),
        Ok(mode) => assert_eq!(parse_sync(&show_sync(mode), &source).expect("what was shown"), mode),
        Err(e) => assert!(e.message().starts_with("setting sync") && e.remedy().is_some(), "{e:?}"),
    }
    match parse_cache_size(text, &source) {
        Ok(bytes) => assert_eq!(parse_cache_size(&show_size(bytes), &source).expect("what was shown"), bytes),
        Err(e) => assert!(e.message().starts_with("setting cache_size") && e.remedy().is_some(), "{e:?}"),
    }
    match StoreUrl::parse(text, &source) {
        Ok(url) => assert_eq!(url.as_str(), text),
        Err(e) => assert!(e.message().starts_with("setting store") && e.remedy().is_some(), "{e:?}"),
    }
}
