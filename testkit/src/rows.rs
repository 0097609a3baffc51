//! What databases are full of, the same in every run: rows of about 100 bytes, which compress about as well as real
//! text, and pages of them.

/// The size of these pages, in bytes.
pub const PAGE_BYTES: usize = 4096;

/// Rows of [`text`] in a full leaf page, where rowids have three bytes.
const ROWS_A_LEAF: i64 = 37;

const WORDS: [&str; 32] = [
    "amber", "birch", "cobalt", "delta", "ember", "fjord", "garnet", "harbor", "indigo", "juniper", "kelp", "lagoon",
    "meadow", "nectar", "ochre", "prairie", "quartz", "river", "sable", "tundra", "umber", "violet", "willow", "xenon",
    "yarrow", "zephyr", "basalt", "cedar", "dune", "estuary", "fern", "glacier",
];

/// The text of row `id`, exactly 100 bytes.
pub fn text(id: i64) -> String {
    let mut random = mix(id as u64);
    let mut text = format!("{id:08} {:08x}", random as u32);
    while text.len() < 100 {
        random = mix(random);
        text.push(' ');
        text.push_str(WORDS[(random % WORDS.len() as u64) as usize]);
    }
    text.truncate(100);
    text
}

/// A scattered but repeatable row number in 1..=`rows`.
pub fn scattered(i: i64, rows: i64) -> i64 {
    (mix(i as u64) >> 1) as i64 % rows + 1
}

/// A leaf page of a SQLite table of these rows, as full as it gets, with another one's rows for every `n`.
pub fn leaf_page(n: u32) -> [u8; PAGE_BYTES] {
    let mut page = [0; PAGE_BYTES];
    let mut at = PAGE_BYTES;
    for row in 0..ROWS_A_LEAF {
        let id = i64::from(n) * ROWS_A_LEAF + row;
        // A payload of 104 bytes: a header of four, which says that the rowid is the key and that 100 bytes of text follow.
        let rowid = [14, 7, 0].map(|shift| (id >> shift) as u8 & 0x7f);
        let cell = [&[104, rowid[0] | 0x80, rowid[1] | 0x80, rowid[2], 4, 0, 0x81, 0x55], text(id).as_bytes()].concat();
        at -= cell.len();
        page[at..at + cell.len()].copy_from_slice(&cell);
        let pointer = 8 + 2 * row as usize;
        page[pointer..pointer + 2].copy_from_slice(&(at as u16).to_be_bytes());
    }
    page[0] = 13;
    page[3..5].copy_from_slice(&(ROWS_A_LEAF as u16).to_be_bytes());
    page[5..7].copy_from_slice(&(at as u16).to_be_bytes());
    page
}

/// Interior pages of a SQLite table, as full as they get, for rowids of so many bytes.
pub fn interior_pages(count: u32, rowid_bytes: usize) -> Vec<u8> {
    let mut data = Vec::new();
    let (mut child, mut rowid) = (7_u32, 1_u64 << (7 * (rowid_bytes - 1)));
    for _ in 0..count {
        let mut page = vec![0; PAGE_BYTES];
        let cells = (PAGE_BYTES - 12) / (2 + 4 + rowid_bytes);
        for n in 0..cells {
            let at = PAGE_BYTES - (n + 1) * (4 + rowid_bytes);
            page[12 + 2 * n..14 + 2 * n].copy_from_slice(&(at as u16).to_be_bytes());
            page[at..at + 4].copy_from_slice(&child.to_be_bytes());
            for byte in 0..rowid_bytes {
                let more = if byte + 1 < rowid_bytes { 0x80 } else { 0 };
                page[at + 4 + byte] = (rowid >> (7 * (rowid_bytes - 1 - byte))) as u8 & 0x7f | more;
            }
            (child, rowid) = (child + 1, rowid + 37);
        }
        data.extend(page);
    }
    data
}

/// A page that does not compress.
pub fn noise_page(n: u32) -> [u8; PAGE_BYTES] {
    let mut page = [0; PAGE_BYTES];
    let mut random = u64::from(n);
    for word in page.chunks_exact_mut(8) {
        random = mix(random);
        word.copy_from_slice(&random.to_le_bytes());
    }
    page
}

/// SplitMix64's output function (Steele, Lea, Flood 2014).
fn mix(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
