//! Every byte that a client and the daemon exchange, one call of each method on one connection.

use std::fmt::Write;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};

use blockdev::{BlockDevice, MemoryDevice};
use journal::{Disk, FormatOptions, Random, format};
use policy::{Peer, Policy};
use statefs_client::{
    AuditRing, Batch, Directory, ErrorCode, ListOptions, Result, Rights, StateFs, Token,
    WriteOptions, drive,
};
use statefsd::{ConnectionId, Limits, Server};
use vat::Vat;

const POLICY: &str = "version = 1
service.golden.uid = 7
[[grant]]
to = 'golden'
prefix = '/state'
rights = ['get', 'list', 'put', 'delete', 'admin.stats', 'admin.check', 'admin.checkpoint', \
          'admin.policy', 'admin.audit']
";

#[test]
fn what_is_said_never_drifts() {
    let mut world = World::new();
    let store = StateFs::over(&world.vat);
    world.call("StateFs.hello", store.hello("golden 1.0"));
    world.call("StateFs.health", store.health());
    world.call("StateFs.describe", store.describe());
    let here: Directory = world.call("StateFs.open", async {
        let here = store.directory("/state/net", Rights::ALL);
        // Opening is answered with the first call on it.
        here.sync().await.map(|()| here)
    });
    let version = world.call("Directory.put", here.put_if_absent("wifi", b"on"));
    world.call("Directory.get", here.get("wifi"));
    world.call("Directory.list", here.page(&ListOptions::default()));
    world.call("Directory.getMany", here.get_many(&["wifi", "none"]));
    let mut batch = Batch::new();
    batch.put("a", b"1").delete_if_version("wifi", version).token(Token([9; 16]));
    world.call("Directory.commit", here.commit(&batch));
    world.call("Directory.delete", here.delete("a"));
    world.call("Directory.sync", here.sync());
    world.call("Directory.usage", here.usage(""));
    let writer = here.writer("dump", None, WriteOptions::default());
    world.call("Writer.write", writer.write(b"first "));
    world.call("Writer.done", writer.done());
    let reader = here.reader("dump");
    world.call("Reader.info", reader.info());
    world.call("Reader.read", reader.read(2, 3));
    let (narrow, revoker) = here.restrict("", Rights::GET, None);
    world.call("Directory.restrict", narrow.get("dump"));
    world.call("Revoker.revoke", revoker.revoke());
    let error = world.answer("Revoker.revoked", narrow.get("dump")).unwrap_err();
    assert_eq!(error.refusal(), Some(ErrorCode::Revoked));
    let admin = store.admin();
    world.call("Admin.stats", admin.stats());
    world.call("Admin.check", admin.check(0));
    world.call("Admin.checkpoint", admin.checkpoint());
    world.call("Admin.reloadPolicy", admin.reload_policy());
    let page = world.call("Admin.audit", admin.audit(AuditRing::Mutations, 0, 2));
    assert_eq!((page.records.len(), page.next, page.oldest), (2, Some(2), 1));
}

struct World {
    server: Server,
    device: MemoryDevice,
    connection: ConnectionId,
    vat: Vat,
}

impl World {
    fn new() -> Self {
        let mut device = MemoryDevice::new(16 << 20);
        let disk = Disk::new(device.geometry());
        let mut random = Random::from_seed([7; 32]);
        {
            let mut formatting = pin!(format(&disk, &mut random, FormatOptions::default()));
            let mut context = Context::from_waker(Waker::noop());
            while formatting.as_mut().poll(&mut context).is_pending() {
                while let Some(request) = disk.next_request() {
                    device.submit(request);
                }
                while let Some(completion) = device.completion() {
                    disk.complete(completion);
                }
            }
        }
        let policy = Policy::parse(POLICY).unwrap();
        let mut server = Server::new(device.geometry(), policy, [1; 32], Limits::default());
        let peer = Peer { channel: "default".into(), uid: Some(7) };
        let connection = server.connect(peer).unwrap();
        let vat = Vat::new(None, vat::Limits::default());
        Self { server, device, connection, vat }
    }

    /// Makes a call, and holds what was said to the file of that name.
    fn call<T>(&mut self, name: &str, call: impl Future<Output = Result<T>>) -> T {
        self.answer(name, call).unwrap()
    }

    fn answer<T>(&mut self, name: &str, call: impl Future<Output = Result<T>>) -> Result<T> {
        let Self { server, device, connection, vat } = self;
        let mut text = String::new();
        let answer = drive(vat, call, |vat| {
            let mut said = vat.take_output();
            dump(&mut text, "client", &said);
            for _ in 0..100_000 {
                let taken = server.receive(*connection, &said).unwrap();
                said.drain(..taken);
                server.poll(0);
                while let Some(request) = server.next_request() {
                    device.submit(request);
                }
                while let Some(completion) = device.completion() {
                    server.complete(completion);
                }
                let heard = server.output(*connection).to_vec();
                if said.is_empty() && !heard.is_empty() {
                    server.sent(*connection, heard.len());
                    dump(&mut text, "daemon", &heard);
                    vat.receive(&heard).unwrap();
                    return Ok(());
                }
            }
            Err("the daemon says nothing".into())
        });
        let mut settings = insta::Settings::clone_current();
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.bind(|| insta::assert_snapshot!(format!("{name}.transcript"), text));
        answer
    }
}

/// Writes bytes as hex, two words a line; of a long text the beginning, and what all of it sums to.
fn dump(text: &mut String, who: &str, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    writeln!(text, "# {who}, {} bytes", bytes.len()).unwrap();
    for (line, bytes) in bytes.chunks(16).enumerate().take(LINES_MAX) {
        let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let shown = |byte: &u8| if byte.is_ascii_graphic() { char::from(*byte) } else { '.' };
        let shown: String = bytes.iter().map(shown).collect();
        writeln!(text, "{:04x}  {:<47}  {shown}", line * 16, hex.join(" ")).unwrap();
    }
    if bytes.len() > LINES_MAX * 16 {
        let sum = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
            // FNV: any byte that changes, changes it.
            (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        writeln!(text, "and more, {sum:016x} in all").unwrap();
    }
}

const LINES_MAX: usize = 64;
