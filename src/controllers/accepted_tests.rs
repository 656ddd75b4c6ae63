use serde_json::json;

use super::*;

fn object(data: serde_json::Value) -> ConfigMap {
    let meta =
        json!({"name": "resurgam-accepted.db", "namespace": RECORDS_NAMESPACE, "resourceVersion": "7"});
    serde_json::from_value(json!({"metadata": meta, "data": data})).unwrap()
}

fn sound() -> serde_json::Value {
    let requirements = Requirements { version: 1, incident: "nov".to_owned(), ..Requirements::default() };
    json!({
        INCIDENT: "nov", INCIDENT_UID: "uid-9", PLAN: "recovery/p", SERVICE: "db", ACCEPTED_BY: "plan recovery/p",
        ACCEPTED_AT: "2026-11-24T03:00:00Z", EXCEPTIONS: "[\"loosened\"]",
        REQUIREMENTS: serde_json::to_string(&requirements).unwrap(),
    })
}

#[test]
fn a_record_is_read_back_as_it_was_written() {
    let AcceptedState::Record { revision, record } = parse(&object(sound())) else { panic!("not read") };
    assert_eq!((revision.as_str(), record.by.as_str()), ("7", "plan recovery/p"));
    assert_eq!((record.requirements.incident.as_str(), record.exceptions.len()), ("nov", 1));
}

#[test]
fn a_record_that_is_not_as_it_was_written_is_unreadable() {
    for (key, value) in [
        (REQUIREMENTS, json!("{}")),
        (REQUIREMENTS, json!("not JSON")),
        (REQUIREMENTS, json!(null)),
        (INCIDENT_UID, json!(null)),
        (ACCEPTED_BY, json!(null)),
        (EXCEPTIONS, json!("{}")),
    ] {
        let mut data = sound();
        data[key] = value.clone();
        if value.is_null() {
            data.as_object_mut().unwrap().remove(key);
        }
        let AcceptedState::Unreadable { why, .. } = parse(&object(data)) else { panic!("{key}: {value}") };
        assert!(why.contains("resurgam-accepted.db") && why.contains(key), "{why}");
    }
    // A field of a newer version.
    let mut data = sound();
    let mut requirements: serde_json::Value =
        serde_json::from_str(data[REQUIREMENTS].as_str().unwrap()).unwrap();
    requirements["evidence"] = json!("required");
    data[REQUIREMENTS] = json!(requirements.to_string());
    assert!(matches!(parse(&object(data)), AcceptedState::Unreadable { .. }));
}

#[test]
fn scope_follows_from_the_name_of_its_record() {
    for of in [
        Scope::Namespace("db".to_owned()),
        Scope::External { plan_namespace: "recovery".to_owned(), service: "idp".to_owned() },
    ] {
        assert_eq!(scope(&name(&of)), Some(of));
    }
    assert_eq!(scope("resurgam-guard"), None);
}
