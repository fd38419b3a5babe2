//! Volumes with a known content, made by the journal itself.

use std::fs;
use std::future::Future;
use std::path::Path;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use blockdev::{BlockDevice, MemoryDevice};
use journal::{
    Batch, Clock, Disk, Durability, FormatOptions, Journal, Operation, Options, Origin,
    Precondition, Random, format,
};
use serde_json::Value as Json;

/// Bytes of the volumes of most tests: the smallest with room for some groups in each segment.
pub(crate) const SMALL_BYTES: u64 = 256 << 10;

/// Where zone A of the small volumes begins, and zone B.
pub(crate) const ZONES: [usize; 2] = [2 * 4096, (2 + (64 - 4) / 2) * 4096];
const _: () = assert!(SMALL_BYTES == 64 * 4096);

/// A change: a key, and its new value or nothing.
pub(crate) type Change = (String, Option<Vec<u8>>);

/// Yields puts of `count` keys, whose values tell `round`.
pub(crate) fn puts(count: usize, round: usize) -> Vec<Change> {
    let put = |n| (format!("/state/k/{n:03}"), Some(format!("value {n} of {round}").into_bytes()));
    (0..count).map(put).collect()
}

/// Makes a volume at `path`, of blocks of 512 bytes, with one commit or upload per change; one mount per list.
pub(crate) fn make(path: &Path, bytes: u64, copies: u8, mounts: &[Vec<Change>]) {
    let mut device = MemoryDevice::new(usize::try_from(bytes).unwrap());
    let disk = Disk::new(device.geometry());
    let mut random = Random::from_seed([7; 32]);
    let options = FormatOptions { block_bytes: 512, copies, force: false };
    drive(&disk, &mut device, None, format(&disk, &mut random, options)).unwrap();
    fill(&mut device, &disk, 1, mounts);
    fs::write(path, device.into_bytes()).unwrap();
}

/// Makes a small volume of six keys at `path`, whose last group, a second put of the first key, is damaged in both copies.
pub(crate) fn make_with_a_loss(path: &Path) {
    make(path, SMALL_BYTES, 2, &[puts(6, 0), puts(1, 1)]);
    let mut bytes = fs::read(path).unwrap();
    for zone in ZONES {
        *bytes.get_mut(zone + 2 * 512 + 180).unwrap() ^= 1;
    }
    fs::write(path, &bytes).unwrap();
}

/// Flips a bit in both copies of one group of the image `x.img` in `folder`: in byte `at` of the group that `least` yields the least for.
pub(crate) fn flip_in_group<K: Ord + Copy>(
    folder: &Path,
    at: u64,
    least: impl Fn(&Json) -> Option<K>,
) {
    let shown = super::statefs(folder, "image inspect x.img -o json").exits(0);
    let shown: Json = serde_json::from_str(shown.text()).unwrap();
    let number = |of: &Json, name: &str| of.get(name).and_then(Json::as_u64).unwrap();
    let groups = shown.get("groups").and_then(Json::as_array).unwrap().iter();
    let group = groups.filter_map(|group| Some((least(group)?, group))).min_by_key(|it| it.0);
    let (_, group) = group.expect("there is one");
    let there = number(group, "segment") * number(&shown, "segmentBytes")
        + number(group, "block") * number(&shown, "blockBytes");
    let path = folder.join("x.img");
    let mut bytes = fs::read(&path).unwrap();
    for zone in [2 * 4096, number(&shown, "zoneB")] {
        *bytes.get_mut(usize::try_from(zone + there + at).unwrap()).unwrap() ^= 1;
    }
    fs::write(&path, &bytes).unwrap();
}

/// Goes on with the volume at `path` in the same way, its next mount being number `first`.
pub(crate) fn go_on(path: &Path, first: u8, mounts: &[Vec<Change>]) {
    let mut device = MemoryDevice::from_bytes(fs::read(path).unwrap());
    let disk = Disk::new(device.geometry());
    fill(&mut device, &disk, first, mounts);
    fs::write(path, device.into_bytes()).unwrap();
}

fn fill(device: &mut MemoryDevice, disk: &Disk, first: u8, mounts: &[Vec<Change>]) {
    for (mount, changes) in (first..).zip(mounts) {
        let options = Options { replay_bytes: Some(8 << 10), ..Options::default() };
        let random = Random::from_seed([mount; 32]);
        let opening = Journal::open(disk.clone(), random, Clock::default(), options);
        let journal = drive(disk, device, None, opening).unwrap();
        let mut writer: Task = Box::pin(journal.run());
        for (key, value) in changes {
            let most = journal.stats().geometry.value_bytes_max();
            if let Some(value) = value.as_deref().filter(|value| value.len() > most) {
                let (of, key) = (journal.clone(), key.as_bytes().into());
                let uploading = async move {
                    let mut upload = of.upload(Origin(1));
                    upload.append(value).await?;
                    upload.commit(key, Precondition::Any, Durability::Durable).await
                };
                drive(disk, device, Some(&mut writer), uploading).unwrap();
                continue;
            }
            let operation = Operation {
                key: key.as_bytes().into(),
                value: value.as_deref().map(Into::into),
                precondition: Precondition::Any,
            };
            let (durability, origin) = (Durability::Durable, Origin(1));
            let batch = Batch { operations: vec![operation], durability, origin };
            drive(disk, device, Some(&mut writer), journal.commit(batch)).unwrap();
        }
    }
}

type Task = Pin<Box<dyn Future<Output = ()>>>;

fn drive<F: Future>(
    disk: &Disk,
    device: &mut MemoryDevice,
    mut beside: Option<&mut Task>,
    future: F,
) -> F::Output {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..1_000_000 {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        if let Some(writer) = &mut beside {
            let _ = writer.as_mut().poll(&mut context);
        }
        while let Some(request) = disk.next_request() {
            device.submit(request);
        }
        while let Some(completion) = device.completion() {
            disk.complete(completion);
        }
    }
    panic!("it does not end");
}
