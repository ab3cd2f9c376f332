//! The few defaults of the API server that the controller meets.

use serde_json::{Value, json};

use super::{
    kind::Kind,
    object::{assign, number, set, text, texts},
    verbs::DEFAULT_GRACE,
};

/// Fills in what was left out.
pub(super) fn fill_in(kind: Kind, object: &mut Value) {
    match kind {
        Kind::Deployment | Kind::ReplicaSet => {
            if number(object, "/spec/replicas").is_none() {
                set(object, &["spec", "replicas"], json!(1));
            }
            pod_spec(object, &["spec", "template", "spec"]);
        }
        Kind::PodTemplate => pod_spec(object, &["template", "spec"]),
        Kind::Pod => {
            pod_spec(object, &["spec"]);
            if text(object, "/status/phase").is_empty() {
                set(object, &["status", "phase"], json!("Pending"));
            }
        }
        Kind::Secret => written_as_text(object),
        Kind::AgentPool | Kind::JobHint | Kind::ResourceQuota | Kind::Event | Kind::Lease => {}
    }
}

fn pod_spec(object: &mut Value, path: &[&str]) {
    for (field, default) in
        [("terminationGracePeriodSeconds", json!(DEFAULT_GRACE)), ("restartPolicy", json!("Always"))]
    {
        let pointer = format!("/{}/{field}", path.join("/"));
        if object.pointer(&pointer).is_none_or(Value::is_null) {
            set(object, &[path, &[field]].concat(), default);
        }
    }
}

/// `stringData` is written as `data` and never read.
fn written_as_text(secret: &mut Value) {
    for (key, value) in texts(secret, "/stringData") {
        set(secret, &["data", &key], json!(base64(value.as_bytes())));
    }
    assign(secret, &["stringData"], None);
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits = (0..3).fold(0_usize, |bits, index| bits << 8 | usize::from(three.get(index).copied().unwrap_or(0)));
        for place in 0..4 {
            let digit = DIGITS.get(bits >> (18 - 6 * place) & 63).copied().unwrap_or(b'=');
            text.push(char::from(if place > three.len() { b'=' } else { digit }));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_written_as_text_is_read_as_base64() {
        for (plain, coded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("token-1", "dG9rZW4tMQ==")] {
            let mut secret = json!({ "stringData": { "k": plain } });
            fill_in(Kind::Secret, &mut secret);
            assert_eq!(secret, json!({ "data": { "k": coded } }));
        }
    }

    #[test]
    fn a_deployment_that_says_nothing_has_one_replica_and_half_a_minute() {
        let mut deployment = json!({});
        fill_in(Kind::Deployment, &mut deployment);
        assert_eq!(deployment["spec"]["replicas"], 1);
        assert_eq!(deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"], 30);
    }
}
