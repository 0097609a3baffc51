//! The log on standard error, as the setting `log` filters it.

use std::sync::{Arc, OnceLock};

use quire_engine::{Error, Result};
use quire_serve::{LogFilter, Traces};
use quire_settings::{Key, Settings};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

static STARTED: OnceLock<Arc<dyn LogFilter>> = OnceLock::new();

/// Starts logging, and sending traces, if there are any.
pub(crate) fn start(settings: &Settings, traces: Option<&Traces>) -> Result<()> {
    let filter = parse(&settings.log).map_err(|problem| settings.wrong(Key::Log, problem))?;
    let (filter, handle) = reload::Layer::new(filter);
    // It is started once.
    let _ = STARTED.set(Arc::new(Reloaded(handle)));
    let log = fmt::layer().with_writer(std::io::stderr).with_filter(filter);
    tracing_subscriber::registry().with(log).with(traces.map(Traces::layer)).init();
    Ok(())
}

/// The filter, for who may change it from elsewhere.
pub(crate) fn filter() -> Option<Arc<dyn LogFilter>> {
    STARTED.get().cloned()
}

struct Reloaded<S>(Handle<EnvFilter, S>);

impl<S> LogFilter for Reloaded<S> {
    fn get(&self) -> String {
        self.0.with_current(ToString::to_string).unwrap_or_default()
    }

    fn set(&self, filter: &str) -> Result<()> {
        let wrong = |problem: String| {
            Error::invalid(problem).with_remedy("It is like the setting `log`: info, or quire_serve=debug,warn.")
        };
        self.0.reload(parse(filter).map_err(wrong)?).map_err(|e| wrong(e.to_string()))
    }
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
