//! What a recording consists of, in the order in which the kernel did it.
//!
//! The recorder lets one recorded call run at a time, so the order is total.
//! Only what succeeded is in it, and only as far as it went.

use std::ffi::OsString;
use std::io::{self, Error, ErrorKind, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// One thing that a program did. Paths are relative to the recorded folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A program was started; it has nothing open.
    Started,
    /// A descriptor leads to this file or folder from now on.
    Opened {
        /// The descriptor.
        fd: u32,
        /// What it leads to.
        path: PathBuf,
        /// It was made if it did not exist.
        create: bool,
        /// It was emptied.
        truncate: bool,
    },
    /// A descriptor leads nowhere any more.
    Closed {
        /// The descriptor.
        fd: u32,
    },
    /// A descriptor leads where another one does.
    Duplicated {
        /// The new descriptor.
        fd: u32,
        /// The old one.
        from: u32,
    },
    /// Bytes were written.
    Wrote {
        /// Where to.
        fd: u32,
        /// Where they begin in the file.
        offset: u64,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// A file has this length now.
    Resized {
        /// The file.
        fd: u32,
        /// Its length in bytes.
        len: u64,
    },
    /// A file has at least this length now.
    Reserved {
        /// The file.
        fd: u32,
        /// Where the reserved part ends.
        end: u64,
    },
    /// A file, or the names in a folder, were made durable.
    Synced {
        /// The file or folder.
        fd: u32,
    },
    /// A folder was made.
    MadeFolder {
        /// Its name.
        path: PathBuf,
    },
    /// An empty folder was removed.
    RemovedFolder {
        /// Its name.
        path: PathBuf,
    },
    /// A file has one more name.
    Linked {
        /// The new name.
        path: PathBuf,
        /// An old one.
        from: PathBuf,
    },
    /// A name was changed; what had the new one before is gone.
    Renamed {
        /// The new name.
        path: PathBuf,
        /// The old one.
        from: PathBuf,
    },
    /// A name was removed.
    Unlinked {
        /// The name.
        path: PathBuf,
    },
    /// The program wrote to its standard output.
    Said {
        /// What it wrote.
        bytes: Vec<u8>,
    },
}

/// An event as it is stored: its kind, two numbers, and two strings of bytes
/// with their lengths in front.
struct Stored<'a> {
    kind: u8,
    numbers: [u64; 2],
    strings: [&'a [u8]; 2],
}

impl Event {
    /// Its bytes in a recording.
    pub fn encode(&self) -> Vec<u8> {
        let path = |path: &'static str| Path::new(path).as_os_str().as_bytes();
        let none = path("");
        let (kind, numbers, strings) = match self {
            Event::Started => (0, [0; 2], [none; 2]),
            Event::Opened { fd, path, create, truncate } => {
                let flags = u64::from(*create) | u64::from(*truncate) << 1;
                (1, [u64::from(*fd), flags], [path.as_os_str().as_bytes(), none])
            }
            Event::Closed { fd } => (2, [u64::from(*fd), 0], [none; 2]),
            Event::Duplicated { fd, from } => (3, [u64::from(*fd), u64::from(*from)], [none; 2]),
            Event::Wrote { fd, offset, bytes } => (4, [u64::from(*fd), *offset], [bytes, none]),
            Event::Resized { fd, len } => (5, [u64::from(*fd), *len], [none; 2]),
            Event::Reserved { fd, end } => (6, [u64::from(*fd), *end], [none; 2]),
            Event::Synced { fd } => (7, [u64::from(*fd), 0], [none; 2]),
            Event::MadeFolder { path } => (8, [0; 2], [path.as_os_str().as_bytes(), none]),
            Event::RemovedFolder { path } => (9, [0; 2], [path.as_os_str().as_bytes(), none]),
            Event::Linked { path, from } => (10, [0; 2], [path.as_os_str().as_bytes(), from.as_os_str().as_bytes()]),
            Event::Renamed { path, from } => (11, [0; 2], [path.as_os_str().as_bytes(), from.as_os_str().as_bytes()]),
            Event::Unlinked { path } => (12, [0; 2], [path.as_os_str().as_bytes(), none]),
            Event::Said { bytes } => (13, [0; 2], [bytes, none]),
        };
        Stored { kind, numbers, strings }.bytes()
    }

    /// The next event of a recording; none at its end.
    fn read(from: &mut impl Read) -> io::Result<Option<Event>> {
        let mut kind = [0];
        if from.read(&mut kind)? == 0 {
            return Ok(None);
        }
        let first = read_u64(from)?;
        let second = read_u64(from)?;
        let string = read_string(from)?;
        let other = read_string(from)?;
        let fd = u32::try_from(first).map_err(|_| bad("a descriptor is no number of 32 bits"))?;
        let path = |bytes: &[u8]| PathBuf::from(OsString::from_vec(bytes.to_vec()));
        Ok(Some(match kind[0] {
            0 => Event::Started,
            1 => Event::Opened { fd, path: path(&string), create: second & 1 != 0, truncate: second & 2 != 0 },
            2 => Event::Closed { fd },
            3 => Event::Duplicated { fd, from: u32::try_from(second).map_err(|_| bad("a descriptor is too large"))? },
            4 => Event::Wrote { fd, offset: second, bytes: string },
            5 => Event::Resized { fd, len: second },
            6 => Event::Reserved { fd, end: second },
            7 => Event::Synced { fd },
            8 => Event::MadeFolder { path: path(&string) },
            9 => Event::RemovedFolder { path: path(&string) },
            10 => Event::Linked { path: path(&string), from: path(&other) },
            11 => Event::Renamed { path: path(&string), from: path(&other) },
            12 => Event::Unlinked { path: path(&string) },
            13 => Event::Said { bytes: string },
            kind => return Err(bad(&format!("unknown event {kind}"))),
        }))
    }
}

impl Stored<'_> {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![self.kind];
        self.numbers.iter().for_each(|number| bytes.extend(number.to_le_bytes()));
        for string in self.strings {
            bytes.extend((string.len() as u64).to_le_bytes());
            bytes.extend(string);
        }
        bytes
    }
}

fn read_u64(from: &mut impl Read) -> io::Result<u64> {
    let mut bytes = [0; 8];
    from.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

fn read_string(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let len = read_u64(from)?;
    let mut bytes = Vec::new();
    if from.take(len).read_to_end(&mut bytes)? as u64 != len {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}

fn bad(problem: &str) -> Error {
    Error::new(ErrorKind::InvalidData, problem)
}

/// Reads a whole recording.
pub fn read_events(path: &Path) -> io::Result<Vec<Event>> {
    let mut file = io::BufReader::new(std::fs::File::open(path)?);
    let mut events = Vec::new();
    while let Some(event) = Event::read(&mut file)? {
        events.push(event);
    }
    Ok(events)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_comes_back_and_one_that_is_cut_off_is_an_error() {
        let path = PathBuf::from("a/b");
        let from = PathBuf::from("c");
        let events = vec![
            Event::Started,
            Event::Opened { fd: 3, path: path.clone(), create: true, truncate: false },
            Event::Opened { fd: 4, path: path.clone(), create: false, truncate: true },
            Event::Closed { fd: 3 },
            Event::Duplicated { fd: 5, from: 4 },
            Event::Wrote { fd: 5, offset: 1 << 40, bytes: vec![1, 2, 3] },
            Event::Resized { fd: 5, len: 7 },
            Event::Reserved { fd: 5, end: 9 },
            Event::Synced { fd: 5 },
            Event::MadeFolder { path: path.clone() },
            Event::RemovedFolder { path: path.clone() },
            Event::Linked { path: path.clone(), from: from.clone() },
            Event::Renamed { path: path.clone(), from },
            Event::Unlinked { path },
            Event::Said { bytes: b"ok\n".to_vec() },
        ];
        let bytes: Vec<u8> = events.iter().flat_map(Event::encode).collect();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("recording");
        std::fs::write(&file, &bytes).unwrap();
        assert_eq!(read_events(&file).unwrap(), events);
        std::fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
        assert!(read_events(&file).is_err());
    }
}
