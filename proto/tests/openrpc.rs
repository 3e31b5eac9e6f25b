//! The committed `openrpc.json` matches the traits, and it is valid.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;
use sockbroker_proto::api;

const UPDATE: &str =
    "UPDATE_OPENRPC=1 cargo test -p sockbroker-proto --features server --test openrpc";

fn methods(document: &Value) -> &[Value] {
    document["methods"].as_array().map_or(&[], Vec::as_slice)
}

fn parameters(method: &Value) -> &[Value] {
    method["params"].as_array().map_or(&[], Vec::as_slice)
}

/// Every `$ref` below this value.
fn references(value: &Value) -> Vec<&str> {
    match value {
        Value::Object(members) => {
            let own = members.get("$ref").and_then(Value::as_str);
            own.into_iter().chain(members.values().flat_map(references)).collect()
        }
        Value::Array(items) => items.iter().flat_map(references).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn the_committed_document_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openrpc.json");
    let document = serde_json::to_string_pretty(&api::document()).unwrap() + "\n";
    if std::env::var_os("UPDATE_OPENRPC").is_some() {
        std::fs::write(&path, &document).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let differing = document
        .lines()
        .zip(committed.lines().chain(std::iter::repeat("")))
        .position(|(new, old)| new != old);
    assert!(
        committed == document,
        "proto/openrpc.json differs from the traits (first difference in line {:?}); run\n    {UPDATE}",
        differing.map(|line| line + 1),
    );
}

#[test]
fn every_method_has_its_own_name_and_a_summary() {
    let document = api::document();
    let mut names = BTreeSet::new();
    for method in methods(&document) {
        let name = method["name"].as_str().unwrap();
        assert!(names.insert(name), "{name} appears twice");
        assert!(name.contains('.'), "{name} has no namespace");
        for member in ["summary", "description"] {
            assert!(
                method[member].as_str().is_some_and(|text| !text.is_empty()),
                "{name} has no {member}"
            );
        }
        assert!(method["result"]["schema"].is_object(), "{name} has no result");
    }
    assert!(names.len() > 1, "no method except rpc.discover");
    assert!(names.contains("rpc.discover"));
}

#[test]
fn every_parameter_has_a_schema_a_description_and_a_name_in_snake_case() {
    let document = api::document();
    let of_all = methods(&document)
        .iter()
        .flat_map(|method| parameters(method).iter().map(move |p| (&method["name"], p)));
    for (method, parameter) in of_all {
        let name = parameter["name"].as_str().unwrap();
        assert!(
            name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'),
            "{method}: parameter {name} is not in snake case"
        );
        let schema = &parameter["schema"];
        assert!(schema.is_object() || schema.is_boolean(), "{method}: {name} has no schema");
        assert!(
            parameter["description"].as_str().is_some_and(|text| !text.is_empty()),
            "{method}: {name} has no description"
        );
    }
}

/// This schema and every schema in it that is not a reference.
fn schemas(schema: &Value) -> Vec<&Value> {
    let Value::Object(members) = schema else { return Vec::new() };
    if members.contains_key("$ref") {
        return Vec::new();
    }
    let inner = members.iter().flat_map(|(keyword, value)| match (keyword.as_str(), value) {
        ("properties", Value::Object(properties)) => properties.values().collect(),
        ("items" | "anyOf" | "oneOf" | "allOf", Value::Array(items)) => items.iter().collect(),
        ("items" | "additionalProperties", schema) => vec![schema],
        _ => Vec::new(),
    });
    std::iter::once(schema).chain(inner.flat_map(schemas)).collect()
}

#[test]
fn every_schema_has_its_own_title_and_no_number_format() {
    let document = api::document();
    let mut titles = BTreeSet::new();
    let definitions = document["components"]["schemas"].as_object().unwrap().values();
    let parameters = methods(&document).iter().flat_map(parameters).map(|p| &p["schema"]);
    let results = methods(&document).iter().map(|method| &method["result"]["schema"]);
    for schema in definitions.chain(parameters).chain(results).flat_map(schemas) {
        let title = schema["title"].as_str().unwrap_or_else(|| panic!("no title: {schema}"));
        assert!(titles.insert(title), "{title} is the title of two schemas");
        assert_eq!(schema.get("format"), None, "{title}");
    }
}

#[test]
fn no_schema_is_recursive() {
    let document = api::document();
    let definitions = document["components"]["schemas"].as_object().unwrap();
    // Definitions that refer only to definitions known to end.
    let mut finite = BTreeSet::new();
    let leads = |name: &String| references(&definitions[name]).into_iter().map(target).collect();
    while let Some(name) = definitions.keys().find(|name| {
        let leads: BTreeSet<&str> = leads(name);
        !finite.contains(name.as_str()) && leads.iter().all(|name| finite.contains(name))
    }) {
        finite.insert(name.as_str());
    }
    let endless: Vec<_> =
        definitions.keys().filter(|name| !finite.contains(name.as_str())).collect();
    assert!(endless.is_empty(), "{endless:?}");
}

fn target(reference: &str) -> &str {
    reference.rsplit('/').next().unwrap_or_default()
}

#[test]
fn every_method_names_its_errors() {
    let document = api::document();
    for method in methods(&document) {
        let errors = method["errors"].as_array().unwrap();
        let names: Vec<_> =
            errors.iter().map(|error| target(error["$ref"].as_str().unwrap())).collect();
        let name = method["name"].as_str().unwrap();
        assert!(names.contains(&"denied") && names.contains(&"limit"), "{name}: {names:?}");
        let handle = parameters(method).iter().any(|parameter| parameter["name"] == "handle");
        assert!(!handle || names.contains(&"handle"), "{name}: {names:?}");
    }
}

#[test]
fn optional_parameters_follow_required_ones() {
    let document = api::document();
    for method in methods(&document) {
        let required: Vec<bool> = parameters(method)
            .iter()
            .map(|parameter| parameter["required"].as_bool().unwrap())
            .collect();
        assert!(required.is_sorted_by(|a, b| a >= b), "{}", method["name"]);
    }
}

#[test]
fn every_reference_resolves() {
    let document = api::document();
    for reference in references(&document) {
        let target = reference.strip_prefix('#').and_then(|pointer| document.pointer(pointer));
        assert!(target.is_some(), "{reference} leads nowhere");
    }
}
