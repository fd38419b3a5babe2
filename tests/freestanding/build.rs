//! Links without anything of the system: what is missing then was std's or libc's.

#![forbid(unsafe_code)]

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Of -pie and -no-pie the last wins, so this undoes what rustc passes.
    for argument in ["-nostartfiles", "-nostdlib", "-static", "-no-pie"] {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
}
