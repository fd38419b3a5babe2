//! The smallest machine: what `docs/porting.md` asks of the author of another one, and that it works.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

mod machine;

use std::fs;
use std::path::Path;

use harness::{Folder, image};
use machine::{Disk, Machine};
use statefs_client::{Error, Rights, StateFs, drive};
use vat::Vat;

const POLICY: &str = r#"version = 1
[service.app]
channel = "app"
[[grant]]
to = "app"
prefix = "/state/app"
rights = ["get", "put"]
"#;

#[test]
fn a_port_keeps_what_it_acknowledged_and_knows_its_channels() {
    let folder = Folder::new().unwrap();
    let path = folder.join("state.img");
    image::make(&path, 8 << 20).unwrap();
    let mut disk = Disk::new(fs::read(&path).unwrap());
    for round in 0..4_u8 {
        let mut machine = Machine::start(disk, POLICY, &["app", "other"], [round + 1; 32]);
        let found: Result<_, Error> = run(&mut machine, 0, async |store| {
            let app = store.directory("/state/app", Rights::GET | Rights::PUT);
            let before = app.get("key").await?.map(|value| value.data);
            app.put("key", &[round; 5000]).await?;
            Ok(before)
        });
        assert_eq!(found.unwrap(), round.checked_sub(1).map(|before| vec![before; 5000]));
        let refused: Result<_, Error> = run(&mut machine, 1, async |store| {
            store.directory("/state/app", Rights::GET).get("key").await
        });
        assert_eq!(refused.unwrap_err().code(), "ACCESS_DENIED");
        assert!(machine.ready);
        disk = machine.stop();
    }
}

/// A client at a channel of the machine.
fn run<T>(
    machine: &mut Machine,
    channel: usize,
    work: impl AsyncFnOnce(StateFs) -> Result<T, Error>,
) -> Result<T, Error> {
    let vat = Vat::new(None, vat::Limits::default());
    drive(&vat, work(StateFs::over(&vat)), |vat| {
        machine.channels.get_mut(channel).unwrap().to_server.extend(vat.take_output());
        machine.turn();
        let output = std::mem::take(&mut machine.channels.get_mut(channel).unwrap().to_client);
        vat.receive(&output).map_err(|error| error.to_string())
    })
}

/// `docs/porting.md` promises it.
#[test]
fn a_port_takes_less_than_200_lines() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/port/machine.rs");
    let lines = fs::read_to_string(source).unwrap().lines().count();
    assert!(lines < 200, "{lines} lines");
}
