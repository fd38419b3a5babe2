//! Links the guest as an image of its own: no start files, no C library, addresses of its machine.

#![forbid(unsafe_code)]

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let folder = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let machine = std::env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    let script = format!("{folder}/src/machine/{machine}/image.ld");
    println!("cargo::rerun-if-changed={script}");
    // Of -pie and -no-pie the last wins, so this undoes what rustc passes.
    let arguments = [
        // Functions that are the same bytes are one.
        "-Wl,--icf=all",
        "-nostartfiles",
        "-nostdlib",
        "-static",
        "-no-pie",
        "-Wl,--build-id=none",
        "-Wl,-z,max-page-size=4096",
        &format!("-Wl,-T,{script}"),
    ];
    for argument in arguments {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
}
