//! Bytes that live only as long as a transaction: in memory, and past a bound
//! in a temporary file.

use quire_engine::Result;

use crate::temp::{TempFile, VfsRef};

/// More bytes than this go to a temporary file.
const MEMORY_BYTES: usize = 8 << 20;

/// A small file without a name.
pub(crate) struct Spool {
    base: VfsRef,
    memory: Vec<u8>,
    /// Has everything, once there is too much for memory.
    file: Option<TempFile>,
    len: u64,
}

impl Spool {
    /// An empty one; `memory` is a buffer to use again.
    pub(crate) fn new(base: VfsRef, mut memory: Vec<u8>) -> Spool {
        memory.clear();
        Spool { base, memory, file: None, len: 0 }
    }

    /// How many bytes it has.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Puts `bytes` at `offset`. What lies between the end and `offset` becomes zeros.
    pub(crate) fn write(&mut self, bytes: &[u8], offset: u64) -> Result<()> {
        let end = offset + bytes.len() as u64;
        if self.file.is_none() && end > MEMORY_BYTES as u64 {
            self.move_to_file()?;
        }
        if let Some(file) = &mut self.file {
            const ZEROS: [u8; 4096] = [0; 4096];
            while self.len < offset {
                let gap = (offset - self.len).min(ZEROS.len() as u64);
                file.write(&ZEROS[..gap as usize], self.len)?;
                self.len += gap;
            }
            file.write(bytes, offset)?;
        } else {
            let (start, end) = (offset as usize, end as usize);
            if self.memory.len() < end {
                self.memory.resize(end, 0);
            }
            self.memory[start..end].copy_from_slice(bytes);
        }
        self.len = self.len.max(end);
        Ok(())
    }

    /// Copies what is at `offset`, and says how many bytes there were; the rest becomes zeros.
    pub(crate) fn read(&mut self, bytes: &mut [u8], offset: u64) -> Result<usize> {
        let there = self.len.saturating_sub(offset).min(bytes.len() as u64) as usize;
        let (found, rest) = bytes.split_at_mut(there);
        rest.fill(0);
        match &mut self.file {
            _ if there == 0 => {}
            Some(file) => file.read(found, offset)?,
            None => found.copy_from_slice(&self.memory[offset as usize..][..there]),
        }
        Ok(there)
    }

    /// Cuts it off at `len` bytes.
    pub(crate) fn truncate(&mut self, len: u64) {
        if len < self.len {
            self.len = len;
            self.memory.truncate(len as usize);
        }
        if len == 0 {
            self.file = None;
        }
    }

    /// Its buffer, for the next one.
    pub(crate) fn into_buffer(self) -> Vec<u8> {
        self.memory
    }

    fn move_to_file(&mut self) -> Result<()> {
        let mut file = self.base.open_temp()?;
        file.write(&self.memory, 0)?;
        self.memory = Vec::new();
        self.file = Some(file);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};

    use super::*;

    fn base() -> VfsRef {
        // SAFETY: the linked SQLite initializes itself, and has a default VFS.
        VfsRef::new(unsafe {
            libsqlite3_sys::sqlite3_initialize();
            libsqlite3_sys::sqlite3_vfs_find(std::ptr::null())
        })
        .unwrap()
    }

    #[test]
    fn a_spool_reads_like_a_vector_on_both_sides_of_the_bound() {
        let seed: u64 = rand::random();
        println!("seed {seed}");
        let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
        let mut spool = Spool::new(base(), Vec::new());
        let mut model: Vec<u8> = Vec::new();
        let mut has_spilled = false;
        for _ in 0..300 {
            let offset = rng.random_range(0..12usize << 20);
            let bytes: Vec<u8> = (0..rng.random_range(1..9000)).map(|_| rng.random()).collect();
            match rng.random_range(0..10) {
                0 => {
                    let len = if rng.random_bool(0.2) { 0 } else { offset };
                    spool.truncate(len as u64);
                    model.truncate(len);
                }
                1..5 => {
                    spool.write(&bytes, offset as u64).unwrap();
                    model.resize(model.len().max(offset + bytes.len()), 0);
                    model[offset..offset + bytes.len()].copy_from_slice(&bytes);
                }
                _ => {
                    let mut read = vec![0xaa; bytes.len()];
                    let there = spool.read(&mut read, offset as u64).unwrap();
                    let mut wanted = model.get(offset..).unwrap_or_default().to_vec();
                    wanted.truncate(bytes.len());
                    assert_eq!(there, wanted.len());
                    wanted.resize(bytes.len(), 0);
                    assert!(read == wanted);
                }
            }
            has_spilled |= spool.file.is_some();
            assert_eq!(spool.len(), model.len() as u64);
        }
        assert!(has_spilled);
    }
}
