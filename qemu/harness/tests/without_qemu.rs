//! A host without QEMU is told how to get it.

#![forbid(unsafe_code)]

use std::process::Command;

#[test]
fn a_host_without_qemu_is_told_how_to_get_it() {
    let program = env!("CARGO_BIN_EXE_harness");
    let mut harness = Command::new(program);
    // Any file stands for the machine: nothing boots it.
    harness.arg("selftest").env("STATEFS_GUEST", program).env("PATH", "/nowhere");
    let output = harness.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("qemu-system-x86_64 is needed"), "{said}");
    assert!(said.contains("`apt-get install qemu-system-x86`"), "{said}");
}
