//! `fuzz::virtio` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::virtio::run(bytes));
