//! The fuzz target `pcapng`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sockbroker_fuzz_bodies::pcapng::body(data));
