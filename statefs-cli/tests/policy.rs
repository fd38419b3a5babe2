//! The tools for policy files: faults with their place, decisions with their rule, differences.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

mod common;

use std::fs;

use common::{Folder, statefs};

const SOUND: &str = r#"version = 1
[service.net]
uid = 953
[service.operator]
uid = 0
[[grant]]
to = "net"
prefix = "/state/net"
rights = ["get", "list", "put"]
quota = { bytes = 4096 }
[[grant]]
to = "operator"
prefix = "/state"
rights = ["get", "list", "admin.stats"]
[[ceiling]]
prefix = "/state/net/secrets"
only = ["net"]
[[assert]]
service = "operator"
op = "get"
key = "/state/net/secrets/psk"
expect = "deny"
"#;

fn folder(files: &[(&str, &str)]) -> Folder {
    let folder = Folder::new();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

#[test]
fn check_tells_every_fault_with_its_place() {
    let faulty = SOUND.replace("to = \"net\"", "to = \"nte\"").replace("uid = 0", "uid = 'x'");
    let folder =
        folder(&[("p.toml", SOUND), ("faulty.toml", &faulty), ("not.toml", "version = \n")]);
    let check = |arguments: &str, exit| statefs(folder.path(), arguments).exits(exit);
    let run = check("policy check p.toml", 0);
    assert_eq!(run.text(), "p.toml: sound (2 services, 2 grants, 1 ceiling)\n");
    let run = check("policy check p.toml -o json", 0);
    assert_eq!(run.text(), "{\"ceilings\":1,\"grants\":2,\"services\":2}\n");
    let run = check("policy check faulty.toml", 1);
    assert_eq!(run.text(), "faulty.toml:5:7: expected an integer, found a string\n");
    assert!(run.stderr.starts_with("statefs: INVALID_POLICY: faulty.toml: 1 fault\n"), "{run:?}");
    let run = check("policy check faulty.toml -o json", 1);
    assert_eq!(
        run.text(),
        "{\"column\":7,\"file\":\"faulty.toml\",\"line\":5,\
         \"message\":\"expected an integer, found a string\"}\n"
    );
    assert!(check("policy check not.toml", 1).text().starts_with("not.toml:1:"));
    let run = check("policy check absent.toml", 1);
    assert!(run.stderr.starts_with("statefs: POLICY_FILE: absent.toml: "), "{run:?}");
    // A rule that an assertion of the file forbids is a fault of it.
    let broken = SOUND.replace("only = [\"net\"]", "only = [\"net\", \"operator\"]");
    fs::write(folder.path().join("broken.toml"), broken).unwrap();
    let run = check("policy check broken.toml", 1);
    assert_eq!(
        run.text(),
        "broken.toml:18:1: the assertion fails: the grant at line 11 allows it\n"
    );
}

#[test]
fn explain_names_what_decides_or_what_is_missing() {
    let folder = folder(&[("p.toml", SOUND), ("bad.toml", "version = 2\nx = 1\n")]);
    let explain =
        |rest: &str, exit| statefs(folder.path(), &format!("policy explain {rest}")).exits(exit);
    let run = explain("p.toml --service net --op put /state/net/secrets/psk", 0);
    assert_eq!(
        run.text(),
        "allow: \"net\" may put \"/state/net/secrets/psk\"\n  grant at line 6 gives put\n  \
         ceiling at line 15 lets it pass\n"
    );
    let run = explain("p.toml --service operator --op get /state/net/secrets/psk", 5);
    assert!(run.text().contains("the ceiling at line 15 keeps [\"get\"] from \"operator\""));
    assert_eq!(run.stderr, "");
    let run = explain("p.toml --service net --op delete /state/net/ssid", 5);
    let missing = "[[grant]]\nto = \"net\"\nprefix = \"/state/net/ssid\"\nrights = [\"delete\"]\n";
    assert!(run.text().ends_with(&format!("what is missing:\n{missing}")), "{}", run.text());
    // A right over the whole store is missing nowhere else: the file would be refused.
    let run = explain("p.toml --service net --op admin.stats /state/net", 2);
    assert!(run.stderr.contains("acts on the whole store: ask for /state\n"), "{}", run.stderr);
    explain("p.toml --service net --op admin.stats /state", 5);
    // What it says is missing is what was missing.
    fs::write(folder.path().join("p2.toml"), format!("{SOUND}{missing}")).unwrap();
    explain("p2.toml --service net --op delete /state/net/ssid", 0);
    let run = explain("p.toml --service net --op delete /state/net/ssid -o json", 5);
    assert_eq!(
        run.text(),
        "{\"allowed\":false,\"ceilings\":[],\"grants\":[],\"hidden\":[],\
         \"key\":\"/state/net/ssid\",\"missing\":{\"prefix\":\"/state/net/ssid\",\
         \"rights\":[\"delete\"],\"to\":\"net\"},\"only\":[],\"op\":\"delete\",\
         \"reason\":\"\\\"net\\\" may not delete \\\"/state/net/ssid\\\": no grant to = \\\"net\\\", \
         prefix = \\\"/state/net/ssid\\\", rights = [\\\"delete\\\"]\",\"rule\":null,\
         \"service\":\"net\"}\n"
    );
    let run = explain("p.toml --service net --op list /state", 0);
    assert!(run.text().contains("only in \"/state/net\""), "{}", run.text());
    let run = explain("p.toml --service nobody --op get /state/a", 5);
    assert!(run.text().contains("the policy knows no such peer as \"nobody\""));
    let run = explain("p.toml --service net --op get /state/net/", 1);
    assert!(run.stderr.starts_with("statefs: INVALID_KEY: "), "{run:?}");
    let run = explain("bad.toml --service net --op get /state/a", 1);
    assert_eq!(run.text(), "");
    assert!(run.stderr.contains("bad.toml:1:11: "), "{run:?}");
}

#[test]
fn diff_tells_meanings_not_texts() {
    let reworded =
        SOUND.replace("[\"get\", \"list\", \"put\"]", "[\"put\", \"list\", \"get\"] # all");
    let changed = SOUND
        .replace("[\"get\", \"list\", \"put\"]", "[\"get\", \"list\", \"delete\"]")
        .replace("bytes = 4096", "bytes = 8192")
        .replace("uid = 953", "uid = 954");
    let folder = folder(&[("a.toml", SOUND), ("b.toml", &reworded), ("c.toml", &changed)]);
    let diff =
        |rest: &str, exit| statefs(folder.path(), &format!("policy diff {rest}")).exits(exit);
    assert_eq!(diff("a.toml b.toml", 0).text(), "");
    assert_eq!(
        diff("a.toml c.toml", 0).text(),
        "service \"net\" was uid = 953, is uid = 954\n\
         \"net\" gains [\"delete\"] and loses [\"put\"] in \"/state/net\"\n\
         the quota of \"/state/net\" was { bytes = 4096 }, is { bytes = 8192 }\n"
    );
    assert_eq!(
        diff("a.toml c.toml -o json", 0).text(),
        "{\"after\":\"uid = 954\",\"before\":\"uid = 953\",\"change\":\"service\",\"service\":\"net\"}\n\
         {\"change\":\"rights\",\"except\":[],\"gained\":[\"delete\"],\"lost\":[\"put\"],\
         \"prefix\":\"/state/net\",\"service\":\"net\"}\n\
         {\"after\":{\"bytes\":8192,\"keys\":null,\"valueMax\":null},\
         \"before\":{\"bytes\":4096,\"keys\":null,\"valueMax\":null},\
         \"change\":\"quota\",\"prefix\":\"/state/net\"}\n"
    );
    assert!(diff("a.toml absent.toml", 1).stderr.contains("POLICY_FILE"));
}
