//! Every example is a network that the API server would take. That they work is for the end-to-end tests to show.
#![cfg(feature = "crd")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests may panic"
)]

use std::{collections::BTreeMap, fs, path::Path};

use kube::{CustomResourceExt, core::cel::validate_cel};
use peernet_api::v1alpha1::PeerNetwork;
use serde_json::Value;

/// The PeerNetworks in `examples/`, by file name.
fn examples() -> BTreeMap<String, Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut networks = BTreeMap::new();
    for file in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let documents: Vec<Value> = serde_saphyr::from_multiple(&fs::read_to_string(&file).unwrap()).unwrap();
        let found: Vec<_> = documents
            .into_iter()
            .filter(|document| document["kind"] == "PeerNetwork")
            .collect();
        assert_eq!(found.len(), 1, "{name} holds one PeerNetwork");
        networks.extend(found.into_iter().map(|network| (name.clone(), network)));
    }
    networks
}

/// Paths of fields that the schema does not know. The API server would drop them without a word.
fn unknown(path: &str, value: &Value, schema: &Value) -> Vec<String> {
    let each = |key: &str, child: &Value| {
        let known = schema["properties"]
            .get(key)
            .or_else(|| schema.get("additionalProperties"));
        known.map_or_else(
            || vec![format!("{path}.{key}")],
            |known| unknown(&format!("{path}.{key}"), child, known),
        )
    };
    match value {
        Value::Object(fields) => fields.iter().flat_map(|(key, child)| each(key, child)).collect(),
        Value::Array(items) => items
            .iter()
            .flat_map(|item| unknown(&format!("{path}[]"), item, &schema["items"]))
            .collect(),
        _ => Vec::new(),
    }
}

#[test]
fn every_example_is_accepted_and_has_no_unknown_field() {
    let crd = serde_json::to_value(PeerNetwork::crd()).unwrap();
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let examples = examples();
    assert!(examples.contains_key("minimal.yaml"));
    for (name, example) in examples {
        assert_eq!(
            unknown("spec", &example["spec"], schema),
            Vec::<String>::new(),
            "{name}"
        );
        let network: PeerNetwork = serde_json::from_value(example).unwrap();
        assert!(
            validate_cel(&network).is_ok(),
            "{name}: {:?}",
            validate_cel(&network)
        );
    }
}
