//! See `ringlog_sim::fuzz::small`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringlog_sim::fuzz::small(data));
