#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quire_bucket::fuzz::refusal(data));
