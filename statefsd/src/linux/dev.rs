//! `--dev`: a folder with everything in it, made on first use.

use core::future::Future;
use core::pin::pin;
use core::task::{Context, Poll, Waker};
use std::format;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use blockdev::{BlockDevice as _, FileDevice};
use journal::{Disk, FormatOptions, Random, format as format_volume};
use policy::Rights;

use super::failure::Failure;
use super::options::{DEFAULT_CHANNEL, Socket};

/// The folder that is used when none is named.
pub(crate) const FOLDER: &str = "statefs-dev";

/// Size of a new image.
const IMAGE_BYTES: u64 = 64 << 20;

/// Where everything is.
pub(crate) struct Made {
    pub(crate) image: PathBuf,
    pub(crate) socket: Socket,
    pub(crate) policy: PathBuf,
}

/// Makes what `folder` lacks, and says where everything is.
///
/// # Errors
/// A file cannot be made. What is there already is never changed.
pub(crate) fn prepare(folder: &Path) -> Result<Made, Failure> {
    let failed = |error| Failure::Dev { path: folder.into(), error };
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    // Two that begin at once make one image.
    let alone = File::open(folder).map_err(failed)?;
    alone.lock().map_err(failed)?;
    let (image, policy) = (folder.join("state.img"), folder.join("policy.toml"));
    write_policy(&policy)?;
    if !image.try_exists().map_err(failed)? {
        make_image(folder, &image)?;
    }
    let socket = Socket { channel: DEFAULT_CHANNEL.into(), path: folder.join("statefs.sock") };
    Ok(Made { image, socket, policy })
}

/// Writes a policy that grants the invoking user everything, unless there is a policy.
fn write_policy(path: &Path) -> Result<(), Failure> {
    let failed = |error| Failure::Dev { path: path.into(), error };
    let uid = rustix::process::getuid().as_raw();
    let rights = Rights::ALL;
    let text = format!(
        "# Who may do what; what nobody grants is denied. SIGHUP loads it anew; a file with faults\n\
         # changes nothing, and the daemon's log names them.\n\
         version = 1\n\n\
         [service.developer]\nuid = {uid}\n\n\
         [[grant]]\nto = \"developer\"\nprefix = \"/state\"\nrights = {rights}\n"
    );
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(mut file) => file.write_all(text.as_bytes()).map_err(failed),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

/// Makes a formatted image under another name first, so that a cut leaves none or a whole one.
fn make_image(folder: &Path, image: &Path) -> Result<(), Failure> {
    let new = folder.join("state.img.new");
    let failed = |error| Failure::Dev { path: new.clone(), error };
    match fs::remove_file(&new) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let device = FileDevice::create(&new, IMAGE_BYTES, || {});
    let mut device = device.map_err(|error| Failure::Image { path: new.clone(), error })?;
    let disk = Disk::new(device.geometry());
    let mut random = Random::from_seed(super::seed()?);
    let formatted = format_volume(&disk, &mut random, FormatOptions::default());
    let formatted = block_on(&disk, &mut device, formatted);
    formatted.map_err(|error| Failure::Format { path: new.clone(), error })?;
    drop(device);
    fs::rename(&new, image).map_err(failed)?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
    tracing::info!(image = %image.display(), bytes = IMAGE_BYTES, "made a new image");
    Ok(())
}

/// Runs a future that waits for nothing but the device.
fn block_on<T>(disk: &Disk, device: &mut FileDevice, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(end) = future.as_mut().poll(&mut context) {
            return end;
        }
        while let Some(request) = disk.next_request() {
            device.submit(request);
        }
        let completion = device.completion_blocking();
        disk.complete(completion.expect("a future that waits has a request in flight"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;
    use std::{env, process, thread};

    #[test]
    fn what_begins_at_once_makes_one_image() {
        for round in 0..10 {
            let folder = env::temp_dir().join(format!("statefsd-dev-{}-{round}", process::id()));
            let begin = || {
                let image = prepare(&folder).unwrap().image;
                std::fs::metadata(image).unwrap().ino()
            };
            let inodes = thread::scope(|scope| {
                let running = [(); 4].map(|()| scope.spawn(begin));
                running.map(|thread| thread.join().unwrap())
            });
            assert_eq!(inodes, [begin(); 4]);
            fs::remove_dir_all(&folder).unwrap();
        }
    }
}
