//! Schemas that can't be said by an attribute: maps with bounds, and types of Kubernetes that come without any.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value};

use crate::report::{MAX_SERVICE_NAME, MAX_SERVICES};

/// Most entries of a map of labels or annotations.
const MAX_ENTRIES: u32 = 32;

/// A map of label keys to label values.
pub(super) fn labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": MAX_ENTRIES,
        "additionalProperties": { "type": "string", "maxLength": 63 },
    })
}

/// A map of annotations.
pub(super) fn annotations(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": MAX_ENTRIES,
        "additionalProperties": { "type": "string", "maxLength": 4096 },
    })
}

/// A map of resource names to quantities.
pub(super) fn quantities(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 8,
        "additionalProperties": {
            "type": "string",
            "maxLength": 32,
            "pattern": r"^[0-9]+(\.[0-9]+)?(m|[kMGTPE]i?|Ki)?$",
        },
    })
}

/// A list of multiaddrs. The schema sees to their form; whether a peer id is one, the operator judges.
pub(super) fn bootstrap_peers(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "set",
        "items": {
            "type": "string",
            "maxLength": 256,
            "pattern": r"^/(ip4|ip6|dns|dns4|dns6)/[^/]+/(tcp/[0-9]{1,5}(/ws)?|udp/[0-9]{1,5}/quic-v1)/p2p/[1-9A-HJ-NP-Za-km-z]+$",
        },
    })
}

/// A list of names of services.
pub(super) fn services(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": MAX_SERVICES,
        "x-kubernetes-list-type": "set",
        "items": {
            "type": "string",
            "minLength": 1,
            "maxLength": MAX_SERVICE_NAME,
            "pattern": r"^[A-Za-z0-9]([A-Za-z0-9._/:-]*[A-Za-z0-9])?$",
        },
    })
}

/// The schema of a Kubernetes type, with a bound on each of its lists, maps and strings. Its descriptions are left out:
/// they are Kubernetes' own and would be more than half of the CRD.
pub(super) fn bounded<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = T::json_schema(generator);
    if let Some(object) = schema.as_object_mut() {
        // The types that it refers to, inlined as a structural schema wants it.
        inline(object, generator);
        bound(object);
        object.remove("title");
    }
    schema
}

fn inline(schema: &mut Map<String, Value>, generator: &SchemaGenerator) {
    if let Some(Value::String(reference)) = schema.remove("$ref") {
        let name = reference.rsplit('/').next().unwrap_or_default();
        if let Some(Value::Object(definition)) = generator.definitions().get(name) {
            schema.extend(definition.clone());
        }
    }
    for_each_child(schema, |child| inline(child, generator));
}

fn bound(schema: &mut Map<String, Value>) {
    schema.remove("description");
    let (keyword, limit) = match schema.get("type").and_then(Value::as_str) {
        Some("array") => ("maxItems", 16),
        Some("string") => ("maxLength", 316),
        Some("object") if schema.contains_key("additionalProperties") => ("maxProperties", 16),
        _ => {
            for_each_child(schema, bound);
            return;
        }
    };
    schema.entry(keyword).or_insert_with(|| Value::from(limit));
    for_each_child(schema, bound);
}

fn for_each_child(schema: &mut Map<String, Value>, mut visit: impl FnMut(&mut Map<String, Value>)) {
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        properties
            .values_mut()
            .filter_map(Value::as_object_mut)
            .for_each(&mut visit);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(child) = schema.get_mut(key).and_then(Value::as_object_mut) {
            visit(child);
        }
    }
}
