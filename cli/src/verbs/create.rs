//! `create`: an empty volume.

use quire_engine::{Error, ErrorKind, PageSize, Volume, VolumeName};
use serde::Serialize;

use crate::context::{Context, new_name};
use crate::output::word;
use crate::stop::Outcome;

#[derive(Serialize)]
struct Created {
    name: String,
    page_size: usize,
}

/// Makes an empty volume here; the store learns of it at the first push.
pub(crate) fn create(ctx: &Context, name: &str, page_size: u32) -> Outcome {
    let name = new_name(name)?;
    let page_size = PageSize::try_new(page_size)?;
    let volume = ctx.engine()?.volume(&name)?;
    let snapshot = volume.snapshot();
    if snapshot.page_size().is_some() {
        return Err(exists(&name, "choose another name").into());
    }
    let mut writer = volume.writer(&snapshot, "quire create")?;
    writer.set_page_size(page_size)?;
    writer.commit(true)?;
    let created = Created { name: name.to_string(), page_size: page_size.bytes() };
    ctx.output.result(&created, |_| format!("created {name}; to bring it to the store: quire push {}", word(&name)))
}

/// A volume that may be filled: a new one, or one without pages.
pub(crate) fn refuse_unless_empty(volume: &Volume) -> Result<(), Error> {
    match volume.snapshot().page_count().get() {
        0 => Ok(()),
        _ => Err(exists(&volume.name(), "choose another name, or remove that volume first")),
    }
}

fn exists(name: &VolumeName, remedy: &str) -> Error {
    Error::new(ErrorKind::AlreadyExists, format!("volume {name} exists already"))
        .with_remedy(format!("Nothing was changed; {remedy}. `quire info {}` shows it.", word(name)))
}
