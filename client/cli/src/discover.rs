//! `sockbroker discover`: lists the methods of the broker, from its OpenRPC document.

use serde_json::{Value, json};

use crate::args::DiscoverArgs;
use crate::connection::Connection;
use crate::failure::{Exit, Failure};
use crate::global::Global;
use crate::screen::{Screen, Style};
use crate::table::Table;

pub(crate) fn run(global: &Global, args: &DiscoverArgs) -> Result<Exit, Failure> {
    let document = Connection::open(global)?.call("rpc.discover", json!({}))?;
    let methods = document.get("methods").and_then(Value::as_array);
    let methods = methods.ok_or_else(|| {
        Failure::protocol("rpc.discover: cannot read the broker's answer: it has no methods")
    })?;
    let wanted = args.method.as_deref().unwrap_or_default();
    let mut screen = Screen::new();
    if let Some(method) = methods.iter().find(|method| text(method, "name") == wanted) {
        let json = global.json;
        let printed = if json { screen.json(method) } else { describe(&mut screen, method) };
        return printed.map(|()| Exit::Done);
    }
    let starting: Vec<_> =
        methods.iter().filter(|method| text(method, "name").starts_with(wanted)).collect();
    if starting.is_empty() {
        let hint = "`sockbroker discover` lists all methods";
        return Err(Failure::new(
            Exit::Failed,
            format!("cannot describe {wanted}: no method begins with it; {hint}"),
        ));
    }
    if global.json {
        screen.json(&if wanted.is_empty() { document.clone() } else { json!(starting) })?;
    } else {
        list(&mut screen, &starting)?;
    }
    Ok(Exit::Done)
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn list(screen: &mut Screen, methods: &[&Value]) -> Result<(), Failure> {
    let mut table = Table::new(&["method", "what it does"]);
    for method in methods {
        let summary = text(method, "summary").replace('`', "");
        table.line(vec![text(method, "name").to_owned(), summary]);
    }
    table.print(screen)
}

fn describe(screen: &mut Screen, method: &Value) -> Result<(), Failure> {
    let name = screen.look(Style::Bold, text(method, "name"));
    screen.line(name)?;
    for line in text(method, "description").lines() {
        screen.line(format_args!("  {line}").to_string().trim_end())?;
    }
    let parameters = method.get("params").and_then(Value::as_array);
    let parameters = parameters.map(Vec::as_slice).unwrap_or_default();
    screen.line("")?;
    if parameters.is_empty() {
        screen.line("Parameters: none")?;
    } else {
        let mut table = Table::new(&["parameter", "type", "", "meaning"]);
        for parameter in parameters {
            let required = parameter.get("required") == Some(&json!(true));
            table.line(vec![
                text(parameter, "name").to_owned(),
                kind(parameter.get("schema").unwrap_or(&Value::Null)),
                if required { "required" } else { "optional" }.to_owned(),
                text(parameter, "description").replace('\n', " "),
            ]);
        }
        table.print(screen)?;
    }
    screen.line("")?;
    let result = method.pointer("/result/schema").unwrap_or(&Value::Null);
    screen.line(format_args!("Returns: {}", kind(result)))
}

/// Describes a JSON schema in few words. It leaves out `null`, the value of an absent optional parameter.
fn kind(schema: &Value) -> String {
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        return reference.rsplit('/').next().unwrap_or_default().to_owned();
    }
    for union in ["anyOf", "oneOf"] {
        if let Some(kinds) = schema.get(union).and_then(Value::as_array) {
            return join_types(kinds.iter().map(kind));
        }
    }
    let member = |name: &str| schema.get(name).map(kind).unwrap_or_default();
    let word = |name: &str| match name {
        "array" if schema.get("prefixItems").is_some() => {
            let items = schema.get("prefixItems").and_then(Value::as_array);
            let items: Vec<_> = items.into_iter().flatten().map(kind).collect();
            format!("[{}]", items.join(", "))
        }
        "array" => format!("list of {}", member("items")),
        "object" if schema.get("additionalProperties").is_some_and(Value::is_object) => {
            format!("object of {}", member("additionalProperties"))
        }
        other => other.to_owned(),
    };
    match schema.get("type") {
        Some(Value::String(name)) => word(name),
        Some(Value::Array(names)) => join_types(names.iter().filter_map(Value::as_str).map(word)),
        _ => "any".to_owned(),
    }
}

fn join_types(kinds: impl Iterator<Item = String>) -> String {
    let kinds: Vec<_> = kinds.filter(|kind| kind != "null").collect();
    kinds.join(" or ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas_are_described_in_few_words() {
        let handle = json!({ "$ref": "#/components/schemas/Handle" });
        assert_eq!(kind(&json!({ "anyOf": [handle, { "type": "null" }] })), "Handle");
        assert_eq!(kind(&json!({ "type": ["integer", "null"], "format": "int64" })), "integer");
        let pair = json!({ "type": "array", "prefixItems": [{ "type": "integer" }, { "type": "string" }] });
        assert_eq!(kind(&json!({ "type": "array", "items": pair })), "list of [integer, string]");
        let limits = json!({ "type": "object", "additionalProperties": handle });
        assert_eq!(kind(&limits), "object of Handle");
        assert_eq!(kind(&json!(true)), "any");
    }

    #[test]
    fn every_type_of_the_contract_has_a_description() {
        let document = sockbroker_proto::api::document();
        for method in document["methods"].as_array().unwrap() {
            for parameter in method["params"].as_array().unwrap() {
                assert!(!kind(&parameter["schema"]).is_empty(), "{parameter}");
            }
            let result = kind(&method["result"]["schema"]);
            assert!(result != "any" || method["name"] == "rpc.discover", "{method}");
        }
    }
}
