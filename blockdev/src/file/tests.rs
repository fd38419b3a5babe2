use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::string::ToString;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, format, process, vec};

use rustix::event::{PollFd, PollFlags};

use super::*;
use crate::conformance::{self, bytes_at, flush, read, run, write};
use crate::{DeviceError, RequestId};

/// A folder of its own for each test, gone when the test ends.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("blockdev-{}-{count}", process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn image(&self) -> PathBuf {
        self.0.join("image")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const DIRECT: OpenOptions = OpenOptions { read_only: false, buffered: false, threads: false };
const BUFFERED: OpenOptions = OpenOptions { buffered: true, ..DIRECT };
const THREADS: OpenOptions = OpenOptions { threads: true, ..DIRECT };
const READ_ONLY: OpenOptions = OpenOptions { read_only: true, ..DIRECT };
/// Whoever serves.
const ALL: [OpenOptions; 3] = [DIRECT, BUFFERED, THREADS];

fn open(path: impl AsRef<Path>, options: OpenOptions) -> Result<FileDevice, OpenError> {
    FileDevice::open(path, options, || {})
}

fn create(path: impl AsRef<Path>, bytes: u64) -> Result<FileDevice, OpenError> {
    FileDevice::create(path, bytes, || {})
}

#[track_caller]
fn refused(result: Result<FileDevice, OpenError>) -> OpenError {
    result.err().expect("the device must not open")
}

#[test]
fn keeps_the_contract() {
    let folder = Folder::new();
    conformance::check(&mut create(folder.image(), 128 * 1024).unwrap());
    for options in ALL {
        conformance::check(&mut open(folder.image(), options).unwrap());
    }
}

#[test]
fn threads_serve_where_they_are_asked_to() {
    let folder = Folder::new();
    drop(create(folder.image(), 128 * 1024).unwrap());
    for options in [BUFFERED, THREADS] {
        assert!(open(folder.image(), options).unwrap().ready().is_none());
    }
}

#[test]
fn keeps_the_contract_through_the_page_cache() {
    let folder = Folder::new();
    drop(create(folder.image(), 128 * 1024).unwrap());
    let mut device = open(folder.image(), BUFFERED).unwrap();
    assert!(!device.direct());
    assert_eq!(device.geometry().sector_bytes, 512);
    conformance::check(&mut device);
}

#[test]
fn what_is_written_is_in_the_file() {
    let folder = Folder::new();
    for options in ALL {
        drop(create(folder.image(), 64 * 1024).unwrap());
        let mut device = open(folder.image(), options).unwrap();
        assert_eq!(run(&mut device, write(1, 8192, &[7; 4096])).result, Ok(()));
        assert_eq!(run(&mut device, flush(2)).result, Ok(()));
        drop(device);
        let mut expected = vec![0; 64 * 1024];
        expected[8192..12288].fill(7);
        assert_eq!(fs::read(folder.image()).unwrap(), expected);
        let mut device = open(folder.image(), options).unwrap();
        assert_eq!(bytes_at(&mut device, 8192, 4096), [7; 4096]);
        fs::remove_file(folder.image()).unwrap();
    }
}

#[test]
fn create_writes_every_zero_and_keeps_others_out() {
    let folder = Folder::new();
    let bytes = 3 * 1024 * 1024 + 4096;
    let device = create(folder.image(), bytes).unwrap();
    let geometry = device.geometry();
    assert_eq!(geometry.device_bytes, bytes);
    assert_eq!(geometry.physical_bytes, 4096);
    assert!(geometry.is_valid());
    let metadata = fs::metadata(folder.image()).unwrap();
    assert_eq!(metadata.len(), bytes);
    assert!(metadata.blocks() * 512 >= bytes, "the file has holes");
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    assert!(fs::read(folder.image()).unwrap().iter().all(|&b| b == 0));
}

#[test]
fn create_takes_a_bare_name() {
    // The folder to make durable is then the working directory.
    let name = format!("blockdev-{}-bare", process::id());
    drop(create(&name, 4096).unwrap());
    fs::remove_file(name).unwrap();
}

#[test]
fn create_replaces_nothing_and_leaves_nothing_behind() {
    let folder = Folder::new();
    fs::write(folder.image(), "precious").unwrap();
    assert_eq!(refused(create(folder.image(), 4096)), OpenError::Exists);
    assert_eq!(fs::read(folder.image()).unwrap(), b"precious");
    let link = folder.0.join("link");
    symlink(folder.0.join("nowhere"), &link).unwrap();
    assert_eq!(refused(create(&link, 4096)), OpenError::Exists);
    for bytes in [0, 512, 4097] {
        let unit = 4096;
        let path = folder.0.join("new");
        assert_eq!(refused(create(&path, bytes)), OpenError::Size { bytes, unit });
        assert!(!path.exists());
    }
    let orphan = folder.0.join("absent/new");
    assert_eq!(refused(create(orphan, 4096)), OpenError::Absent);
}

#[test]
fn a_second_opener_is_told_who_holds_the_device() {
    let folder = Folder::new();
    let device = create(folder.image(), 4096).unwrap();
    for options in [OpenOptions::default(), BUFFERED, READ_ONLY] {
        let error = refused(open(folder.image(), options));
        let OpenError::Busy { holder } = &error else {
            panic!("{error:?}");
        };
        if let Some(holder) = holder {
            assert_eq!(holder.process, process::id());
        }
        assert!(error.to_string().contains("stop that first"));
    }
    drop(device);
    open(folder.image(), OpenOptions::default()).unwrap();
}

#[test]
fn readers_share_and_keep_writers_out() {
    let folder = Folder::new();
    drop(create(folder.image(), 4096).unwrap());
    let mut first = open(folder.image(), READ_ONLY).unwrap();
    let mut second = open(folder.image(), READ_ONLY).unwrap();
    let error = refused(open(folder.image(), OpenOptions::default()));
    assert!(matches!(error, OpenError::Busy { .. }));
    assert_eq!(bytes_at(&mut first, 0, 4096), [0; 4096]);
    let completion = run(&mut second, write(1, 0, &[1; 4096]));
    assert_eq!(completion.result, Err(DeviceError::Io { code: 30 }));
    assert_eq!(run(&mut second, flush(2)).result, Ok(()));
    assert_eq!(fs::read(folder.image()).unwrap(), [0; 4096]);
}

#[test]
fn what_is_no_device_is_named() {
    let folder = Folder::new();
    let options = OpenOptions::default();
    assert_eq!(refused(open(folder.image(), options)), OpenError::Absent);
    assert_eq!(refused(open(&folder.0, options)), OpenError::NotStorage);
    assert_eq!(refused(open("/dev/null", options)), OpenError::NotStorage);
    for bytes in [0, 4095] {
        fs::write(folder.image(), vec![0; bytes]).unwrap();
        let expected = OpenError::TooSmall { bytes: bytes as u64, bytes_min: 4096 };
        assert_eq!(refused(open(folder.image(), options)), expected);
    }
}

#[test]
fn a_ragged_file_is_used_to_its_last_whole_sector() {
    let folder = Folder::new();
    fs::write(folder.image(), vec![3; 3 * 4096 + 100]).unwrap();
    let mut device = open(folder.image(), OpenOptions::default()).unwrap();
    assert_eq!(device.geometry().device_bytes, 3 * 4096);
    assert_eq!(bytes_at(&mut device, 8192, 4096), [3; 4096]);
    assert_eq!(fs::metadata(folder.image()).unwrap().len(), 3 * 4096 + 100);
}

#[test]
fn a_file_that_shrank_fails_its_reads() {
    let folder = Folder::new();
    let mut device = create(folder.image(), 64 * 1024).unwrap();
    let file = fs::File::options().write(true).open(folder.image()).unwrap();
    file.set_len(8192).unwrap();
    let completion = run(&mut device, read(1, 32 * 1024, 4096));
    assert_eq!(completion.result, Err(DeviceError::Io { code: 5 }));
    assert_eq!(bytes_at(&mut device, 4096, 4096), [0; 4096]);
}

/// A wake-up that counts its calls.
fn counted() -> (Arc<AtomicUsize>, impl Fn() + Send + Sync + 'static) {
    let wakes = Arc::new(AtomicUsize::new(0));
    let counter = wakes.clone();
    let wake = move || {
        counter.fetch_add(1, Ordering::SeqCst);
    };
    (wakes, wake)
}

#[test]
fn threads_wake_for_each_completion() {
    let folder = Folder::new();
    drop(create(folder.image(), 64 * 1024).unwrap());
    let (wakes, wake) = counted();
    let mut device = FileDevice::open(folder.image(), THREADS, wake).unwrap();
    assert!(device.completion_blocking().is_none());
    device.submit(write(1, 0, &[1; 4096]));
    device.submit(read(2, 1 << 40, 4096));
    let mut ids = [(); 2].map(|()| device.completion_blocking().unwrap().id);
    ids.sort();
    assert_eq!(ids, [RequestId(1), RequestId(2)]);
    assert!(device.completion_blocking().is_none());
    drop(device);
    assert_eq!(wakes.load(Ordering::SeqCst), 2);
}

/// As an event loop does: waits for the descriptor, and takes what is there.
#[test]
fn a_ring_tells_by_its_descriptor_and_wakes_for_what_the_kernel_never_had() {
    let folder = Folder::new();
    drop(create(folder.image(), 64 * 1024).unwrap());
    let (wakes, wake) = counted();
    let mut device = FileDevice::open(folder.image(), DIRECT, wake).unwrap();
    if device.ready().is_none() {
        std::eprintln!("this kernel or file system gives no ring: not tested");
        return;
    }
    for (id, request) in [(1, write(1, 0, &[1; 4096])), (2, flush(2)), (3, read(3, 0, 4096))] {
        device.submit(request);
        let completion = loop {
            match device.completion() {
                Some(completion) => break completion,
                None => wait_readable(&device),
            }
        };
        assert_eq!((completion.id, completion.result), (RequestId(id), Ok(())));
    }
    assert_eq!(wakes.load(Ordering::SeqCst), 0);
    device.submit(read(4, 1 << 40, 4096));
    assert_eq!(wakes.load(Ordering::SeqCst), 1);
    assert_eq!(device.completion().unwrap().result, Err(DeviceError::OutOfRange));
}

fn wait_readable(device: &FileDevice) {
    let mut wanted = [PollFd::from_borrowed_fd(device.ready().unwrap(), PollFlags::IN)];
    match rustix::event::poll(&mut wanted, None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => panic!("{error}"),
    }
}

/// The kernel takes rings apart when it finds time; a device that was dropped can be opened at once.
#[test]
fn nothing_holds_a_device_that_was_dropped() {
    let folder = Folder::new();
    drop(create(folder.image(), 64 * 1024).unwrap());
    for options in ALL.into_iter().cycle().take(300) {
        let mut device = open(folder.image(), options).unwrap();
        device.submit(write(1, 0, &[1; 4096]));
        device.submit(flush(2));
        device.submit(read(3, 4096, 4096));
    }
}

#[test]
fn errors_say_what_to_do() {
    let size = OpenError::Size { bytes: 100, unit: 4096 };
    assert_eq!(
        size.to_string(),
        "a device of 100 bytes cannot be made: the size must be a positive multiple of 4096"
    );
    let io = OpenError::Io { action: Action::Zero, code: 28 };
    assert_eq!(
        io.to_string(),
        "filling it with zeros failed: No space left on device (os error 28)"
    );
}
