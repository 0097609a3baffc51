//! Loss of power, for tests of real programs.
//!
//! The program `quire-powerloss-recorder` runs another program and writes down
//! what it asks of the disk below one folder ([`Event`]). A [`Disk`] replays
//! such a recording, and at any point of it makes an [`Image`]: a folder as a
//! disk might hold it if the power had gone there and then.
//!
//! # What a disk may forget
//!
//! The rules are as hostile as POSIX allows, and as an ordinary file system
//! can be: they promise nothing but what was asked for.
//!
//! 1. A file's bytes and length are safe once `fsync` or `fdatasync` of the
//!    file has returned; what was changed after that call is not.
//! 2. Each write since then was kept, or dropped, or torn: then each of its
//!    sectors of 512 bytes was kept or dropped by itself. That holds for each
//!    write alone, in whatever order they came. A sector is never half written,
//!    and safe bytes beside a dropped write in the same sector stay.
//! 3. A file's length changes in order: it is the one after some change since
//!    the last sync, whichever, whatever became of the bytes. What never
//!    reached the disk reads as zeros, or as what the file held there before.
//!    A file that was cut and grew again does not show what was cut off.
//! 4. A name in a folder (made, linked, renamed, removed) is safe once `fsync`
//!    of that folder has returned. Syncing the file itself does nothing for its
//!    name. A name may be there without the bytes of its file.
//! 5. Of the changes of names since then some are kept: a first part of all of
//!    them (a journal), a first part of those of each folder, or any of them.
//!    One call is one change: a rename moves the name and replaces the other
//!    one, or does neither. It is safe once either folder is synced.
//! 6. A folder is found only by its name in the folder above, and so on up; the
//!    folder at the top was there before.
//!
//! Not modelled: bytes that rot, sectors that lie, blocks of removed files that
//! show up in others (file systems do not let one file read another's bytes).
//!
//! Test-only. It knows nothing of Quire.

mod disk;
mod event;
mod file;
mod folders;
mod image;
mod kept;

pub use disk::Disk;
pub use event::{Event, read_events};
pub use image::Image;
pub use kept::Kept;
