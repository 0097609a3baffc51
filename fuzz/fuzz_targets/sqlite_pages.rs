#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quire_sqlite_format::fuzz::sqlite_pages(data));
