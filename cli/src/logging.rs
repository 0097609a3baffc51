//! The log on standard error, as the setting `log` filters it.

use quire_engine::Result;
use quire_settings::{Key, Settings};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// Starts logging.
pub(crate) fn start(settings: &Settings) -> Result<()> {
    let filter = parse(&settings.log).map_err(|problem| settings.wrong(Key::Log, problem))?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    Ok(())
}

/// The filter's own syntax takes a bare word for the name of a module, so a
/// misspelt level would turn everything off without a word.
fn parse(text: &str) -> Result<EnvFilter, String> {
    for directive in text.split(',') {
        let level = !directive.is_empty() && directive.parse::<LevelFilter>().is_ok();
        if !level && !directive.contains(['=', '[']) {
            return Err(format!("{directive:?} is not a level"));
        }
    }
    EnvFilter::builder().parse(text).map_err(|e| format!("{text:?} is not a filter: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_level_is_an_error() {
        for text in ["warn", "OFF", "quire_engine=debug,warn", "info,quire_bucket=trace"] {
            assert!(parse(text).is_ok(), "{text}");
        }
        for text in ["loud", "warn,", "quire_engine=loud", "waarn,info"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
