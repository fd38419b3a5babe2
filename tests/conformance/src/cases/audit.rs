//! What is recorded of changes and refusals.

use statefs_client::{AuditOutcome, AuditRecord, AuditRing, Batch, Feature, Rights};

use crate::host::End;
use crate::stage::{Port, Stage, assert_denied};

pub(super) fn each_change_has_one_record(stage: &mut Stage<'_>) {
    let (port, here) = stage.owner();
    assert!(port.hello().serves(Feature::Audit));
    let path = |name: &str| format!("{}/{name}", stage.place());
    let before = last(&port, AuditRing::Mutations);
    let first = port.wait(here.put("a", b"1")).unwrap();
    assert!(port.wait(here.put_if_absent("a", b"2")).is_err());
    assert_eq!(port.wait(here.delete("none")), Ok(false));
    let mut batch = Batch::new();
    batch.put("b", b"3").delete("a");
    let versions = port.wait(here.commit(&batch)).unwrap();
    assert_eq!(port.wait(here.get("a")), Ok(None));
    let told = after(&port, AuditRing::Mutations, before);
    let shown: Vec<_> = told
        .iter()
        .map(|record| (&*record.operation, &*record.key, record.version, record.sequence - before))
        .collect();
    assert_eq!(
        shown,
        [
            ("put", &*path("a"), Some(first), 1),
            ("put", &*path("b"), versions[0], 2),
            ("delete", &*path("a"), None, 3),
        ]
    );
    for record in &told {
        assert_eq!((&*record.service, record.outcome), ("owner", AuditOutcome::Applied));
        assert!(record.rule.starts_with("grant at line "), "{record:?}");
    }
    // The same in pages of one.
    let mut page = port.wait(port.store().admin().audit(AuditRing::Mutations, before, 1)).unwrap();
    assert_eq!((&page.records[..], page.next), (&told[..1], Some(before + 1)));
    page = port.wait(port.store().admin().audit(AuditRing::Mutations, before + 2, 1)).unwrap();
    assert_eq!((&page.records[..], page.next), (&told[2..], None));
}

pub(super) fn each_refusal_has_a_record_with_what_it_lacked(stage: &mut Stage<'_>) {
    let place = stage.place().to_owned();
    let before = {
        let (owner, _) = stage.owner();
        let before = last(&owner, AuditRing::Denials);
        let (lister, here) = stage.connect_here("lister");
        assert_denied(lister.wait(here.put("k", b"v")));
        let stranger = stage.connect("stranger");
        assert_denied(stranger.wait(stranger.directory("/state", Rights::ALL).get("k")));
        assert_denied(stranger.wait(stranger.store().admin().audit(AuditRing::Denials, 0, 0)));
        before
    };
    // What was gathered is written at a clean end.
    stage.restart(End::Clean);
    let (owner, _) = stage.owner();
    let told = after(&owner, AuditRing::Denials, before);
    let of = |service: &str| told.iter().find(|record| record.service == service);
    let (lister, nobody) = (of("lister").unwrap(), of("").unwrap());
    assert_eq!((&*lister.key, lister.outcome), (&*place, AuditOutcome::Denied));
    assert!(lister.rule.contains("no grant to = \"lister\""), "{lister:?}");
    assert!(nobody.rule.contains("names no service"), "{nobody:?}");
}

pub(super) fn a_record_survives_a_kill_with_its_change(stage: &mut Stage<'_>) {
    let (port, here) = stage.owner();
    let before = last(&port, AuditRing::Mutations);
    let version = port.wait(here.put("k", b"v")).unwrap();
    let told = after(&port, AuditRing::Mutations, before);
    drop((port, here));
    stage.restart(End::Kill);
    let (port, here) = stage.owner();
    assert_eq!(after(&port, AuditRing::Mutations, before), told);
    assert_eq!(port.wait(here.get("k")).unwrap().unwrap().version, version);
    // And the numbers go on behind it.
    port.wait(here.put("k", b"w")).unwrap();
    assert_eq!(last(&port, AuditRing::Mutations), before + 2);
}

/// Yields the records of a ring behind `from`.
fn after(port: &Port, ring: AuditRing, from: u64) -> Vec<AuditRecord> {
    let (mut records, mut from) = (Vec::new(), from);
    loop {
        let page = port.wait(port.store().admin().audit(ring, from, 0)).unwrap();
        records.extend(page.records);
        match page.next {
            Some(next) => from = next,
            None => return records,
        }
    }
}

/// Yields the number of the last record of a ring.
fn last(port: &Port, ring: AuditRing) -> u64 {
    after(port, ring, 0).last().map_or(0, |record| record.sequence)
}
