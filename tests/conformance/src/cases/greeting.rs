//! Who answers, and how it fares.

use statefs_client::Mode;

use crate::host::SERVICES;
use crate::stage::Stage;

pub(super) fn hello_tells_each_its_name_and_the_limits(stage: &mut Stage<'_>) {
    for service in SERVICES {
        let port = stage.connect(service);
        let hello = port.hello();
        assert_eq!(hello.protocol, 1);
        let name = hello.service.as_deref();
        assert_eq!(name, Some(*service).filter(|service| *service != "stranger"));
        assert!(!hello.software.is_empty());
        let limits = hello.limits;
        // What the volume decides is the same on every machine; a small one gives less of the rest.
        assert_eq!(limits.key_bytes, 255);
        assert!((1..=65_536).contains(&limits.value_bytes), "{limits:?}");
        assert!(limits.value_bytes < limits.reply_bytes, "{limits:?}");
        assert!(limits.value_bytes < limits.frame_bytes, "{limits:?}");
        assert!(limits.value_bytes <= limits.bytes_in_flight, "{limits:?}");
        assert!(limits.frame_bytes <= limits.traversal_bytes, "{limits:?}");
        for least in [limits.calls, limits.exports, limits.list_entries, limits.connections] {
            assert!(least >= 1, "{limits:?}");
        }
        assert_eq!(port.hello(), hello, "it may be asked again");
    }
}

pub(super) fn a_healthy_store_says_so_to_everybody(stage: &mut Stage<'_>) {
    for service in SERVICES {
        let port = stage.connect(service);
        let health = port.wait(port.store().health()).unwrap();
        assert_eq!((health.mode, &*health.reason, health.loss_count), (Mode::Healthy, "", 0));
    }
}
