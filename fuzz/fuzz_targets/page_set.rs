#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quire_proto::fuzz::page_set(data));
