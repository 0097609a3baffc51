//! Reading and writing the primitives of the stored formats: fixed bytes,
//! little-endian integers, LEB128 variable-length integers, and
//! length-prefixed strings. Every decoder in the workspace is built on
//! [`Reader`], so bounds are checked in one place.

use crate::{Error, Lsn, Result, VolumeName};

/// Appends primitives to a growing buffer.
#[derive(Debug, Default)]
pub struct Writer {
    buf: Vec<u8>,
}

impl Writer {
    /// An empty buffer.
    pub fn new() -> Writer {
        Writer::default()
    }

    /// One byte.
    pub fn u8(&mut self, v: u8) {
        self.buf.push(v);
    }

    /// Four bytes, little-endian.
    pub fn u32(&mut self, v: u32) {
        self.buf.extend_from_slice(&v.to_le_bytes());
    }

    /// Eight bytes, little-endian.
    pub fn u64(&mut self, v: u64) {
        self.buf.extend_from_slice(&v.to_le_bytes());
    }

    /// An unsigned LEB128 integer: 1 to 10 bytes.
    pub fn varint(&mut self, mut v: u64) {
        while v >= 0x80 {
            self.buf.push(v as u8 | 0x80);
            v >>= 7;
        }
        self.buf.push(v as u8);
    }

    /// Bytes as they are, without a length.
    pub fn bytes(&mut self, v: &[u8]) {
        self.buf.extend_from_slice(v);
    }

    /// A varint length, then the bytes.
    pub fn block(&mut self, v: &[u8]) {
        self.varint(v.len() as u64);
        self.bytes(v);
    }

    /// How much has been written, in bytes.
    pub fn len(&self) -> usize {
        self.buf.len()
    }

    /// Whether nothing has been written.
    pub fn is_empty(&self) -> bool {
        self.buf.is_empty()
    }

    /// What has been written so far.
    pub fn as_slice(&self) -> &[u8] {
        &self.buf
    }

    /// The finished bytes.
    pub fn into_vec(self) -> Vec<u8> {
        self.buf
    }
}

/// Takes primitives off the front of untrusted bytes. `what` names the thing
/// being read in every error.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads `bytes`, which are said to be a `what`.
    pub fn new(what: &'static str, bytes: &'a [u8]) -> Reader<'a> {
        Reader { what, rest: bytes }
    }

    /// An error about what is being read.
    pub fn corrupt(&self, problem: impl std::fmt::Display) -> Error {
        Error::corrupt(format!("{}: {problem}", self.what))
    }

    /// The magic bytes that the object begins with, and a version that this program reads.
    pub fn magic(&mut self, magic: [u8; 4], version: u8) -> Result<()> {
        if self.array()? != magic {
            return Err(self.corrupt(format_args!("it does not begin with a {}'s magic bytes", self.what)));
        }
        let found = self.u8()?;
        if found == version {
            return Ok(());
        }
        Err(self
            .corrupt(format_args!("format version {found}, and this program reads version {version}"))
            .with_remedy("It was written by a newer version of Quire: upgrade this one."))
    }

    /// The checksum, little-endian, of all bytes of `object` that were read before it.
    pub fn checksum(&mut self, object: &[u8]) -> Result<()> {
        let found = crc32fast::hash(&object[..object.len() - self.remaining()]);
        let said = self.u32()?;
        if said != found {
            return Err(self.corrupt(format_args!("checksum {found:08x} where {said:08x} belongs")));
        }
        Ok(())
    }

    /// How many bytes are left.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The next `n` bytes.
    pub fn bytes(&mut self, n: usize) -> Result<&'a [u8]> {
        if n > self.rest.len() {
            return Err(self.corrupt(format_args!("{n} bytes wanted, {} left", self.rest.len())));
        }
        let (head, rest) = self.rest.split_at(n);
        self.rest = rest;
        Ok(head)
    }

    /// The next `N` bytes as an array.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.bytes(N)?);
        Ok(out)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8> {
        self.array::<1>().map(|[b]| b)
    }

    /// Four bytes, little-endian.
    pub fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// Eight bytes, little-endian.
    pub fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// An unsigned LEB128 integer in its shortest form.
    pub fn varint(&mut self) -> Result<u64> {
        let mut v: u64 = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            v |= bits << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift > 0 {
                    return Err(self.corrupt("an integer is not in its shortest form"));
                }
                return Ok(v);
            }
        }
        Err(self.corrupt("an integer is longer than 64 bits"))
    }

    /// A varint that must fit 32 bits.
    pub fn varint32(&mut self) -> Result<u32> {
        let v = self.varint()?;
        u32::try_from(v).map_err(|_| self.corrupt(format_args!("{v} does not fit 32 bits")))
    }

    /// A varint that counts things of at least `min_bytes` bytes each, so that
    /// a forged count cannot make the caller allocate more than it was sent.
    pub fn count(&mut self, min_bytes: usize) -> Result<usize> {
        let v = self.varint()?;
        let most = self.rest.len() / min_bytes.max(1);
        match usize::try_from(v) {
            Ok(n) if n <= most => Ok(n),
            _ => Err(self.corrupt(format_args!("{v} entries do not fit {} bytes", self.rest.len()))),
        }
    }

    /// A varint length, then that many bytes.
    pub fn block(&mut self) -> Result<&'a [u8]> {
        let n = self.count(1)?;
        self.bytes(n)
    }

    /// A block of UTF-8 text.
    pub fn text(&mut self) -> Result<&'a str> {
        let bytes = self.block()?;
        std::str::from_utf8(bytes).map_err(|_| self.corrupt("a text is not UTF-8"))
    }

    /// A varint that is an LSN. That it is 0 is damage here, and nobody's wrong argument.
    pub fn lsn(&mut self) -> Result<Lsn> {
        let n = self.varint()?;
        Lsn::new(n).ok_or_else(|| self.corrupt(format_args!("{n} is no LSN")))
    }

    /// A text that is a volume's name. That it is none is damage here, and nobody's wrong argument.
    pub fn volume_name(&mut self) -> Result<VolumeName> {
        VolumeName::parse(self.text()?).map_err(|e| self.corrupt("a bad volume name").with_source(e))
    }

    /// Succeeds only if everything has been read.
    pub fn finish(self) -> Result<()> {
        match self.rest.len() {
            0 => Ok(()),
            n => Err(self.corrupt(format_args!("{n} bytes too many"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn varints_come_back(v: u64) {
            let mut w = Writer::new();
            w.varint(v);
            let mut r = Reader::new("test", w.as_slice());
            prop_assert_eq!(r.varint().unwrap(), v);
            prop_assert!(r.finish().is_ok());
        }

        #[test]
        fn any_bytes_are_a_varint_or_an_error(bytes: Vec<u8>) {
            let mut r = Reader::new("test", &bytes);
            if let Ok(v) = r.varint() {
                let mut w = Writer::new();
                w.varint(v);
                prop_assert_eq!(w.as_slice(), &bytes[..w.len()]);
            }
        }
    }

    #[test]
    fn a_count_that_the_input_cannot_hold_is_refused() {
        let mut w = Writer::new();
        w.varint(1 << 40);
        assert!(Reader::new("test", w.as_slice()).count(1).is_err());
    }
}
