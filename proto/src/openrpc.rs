//! The OpenRPC description of the API, built from the traits in [`crate::api`].
//!
//! Each trait's `*_methods` function (see `sockbroker-proto-macros`) lists its methods;
//! [`document()`] joins the lists. Schemas are JSON Schema draft 7, as OpenRPC requires. The schema of a
//! parameter follows the deserializer, that of a result the serializer; a type that differs between the two
//! has two names.

mod portable;
mod summary;

use std::collections::BTreeMap;

use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::{JsonSchema, Schema};
use serde::Serialize;
use serde_json::{Map, Value, json};

use portable::{join, make_portable};
use summary::first_sentence;

/// Lists the methods of a trait; `#[api]` emits one such function for each.
pub type Namespace = fn(&mut Schemas) -> Vec<Method>;

/// Builds the whole document. `errors` becomes `components.errors`; `errors_of` returns the names of a method's
/// errors, given its name and whether it takes a handle.
pub fn document(
    namespaces: impl IntoIterator<Item = Namespace>,
    errors: Value,
    errors_of: impl Fn(&str, bool) -> Vec<&'static str>,
    version: &str,
) -> Value {
    let mut schemas = Schemas::new();
    let mut methods = vec![Method::discover()];
    for list in namespaces {
        methods.extend(list(&mut schemas));
    }
    methods.sort_by(|a, b| a.name.cmp(&b.name));

    let Definitions { mut schemas, renamed } = schemas.into_definitions();
    // Generators also name a type after each method.
    let taken: Vec<_> = methods.iter().map(|method| join("", &method.name)).collect();
    for (name, schema) in &mut schemas {
        let end = if taken.contains(name) { "Data" } else { "" };
        make_portable(schema, &format!("{name}{end}"));
    }
    for method in &mut methods {
        method.put_required_first();
        let title = join("", &method.name);
        let handles = method.params.iter().any(|parameter| parameter.name == "handle");
        method.errors = errors_of(&method.name, handles).into_iter().map(reference).collect();
        for parameter in &mut method.params {
            redirect(&mut parameter.schema, &renamed);
            make_portable(&mut parameter.schema, &join(&title, &parameter.name));
        }
        make_portable(&mut method.result.schema, &join(&title, "result"));
    }
    let mut document = json!({
        "openrpc": "1.3.2",
        "info": {
            "title": "sockbroker",
            "version": version,
            "description": "The socket module of Python as JSON-RPC, served by a privileged broker.",
            "license": { "name": env!("CARGO_PKG_LICENSE") },
        },
        "methods": methods,
        "components": { "schemas": schemas },
    });
    document["components"]["errors"] = errors;
    document.sort_all_objects();
    document
}

/// A method object of OpenRPC.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Method {
    name: String,
    summary: String,
    description: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    deprecated: bool,
    param_structure: &'static str,
    params: Vec<Parameter>,
    result: MethodResult,
    errors: Vec<Value>,
}

/// A parameter of a [`Method`], a content descriptor object of OpenRPC.
#[derive(Clone, Debug, Serialize)]
pub struct Parameter {
    name: String,
    description: String,
    required: bool,
    schema: Value,
}

/// The result of a [`Method`], a content descriptor object of OpenRPC.
#[derive(Clone, Debug, Serialize)]
struct MethodResult {
    name: &'static str,
    schema: Value,
}

impl Method {
    /// A method without parameters whose result is null; `name` includes the namespace.
    pub fn new(name: &str, documentation: &str) -> Self {
        Self {
            name: name.to_owned(),
            summary: first_sentence(documentation),
            description: documentation.to_owned(),
            deprecated: false,
            param_structure: "either",
            params: Vec::new(),
            result: MethodResult { name: "result", schema: json!({ "type": "null" }) },
            errors: Vec::new(),
        }
    }

    /// Marks the method as deprecated.
    #[must_use]
    pub fn deprecated(mut self) -> Self {
        self.deprecated = true;
        self
    }

    /// Adds a required parameter.
    #[must_use]
    pub fn required<T: JsonSchema>(self, schemas: &mut Schemas, name: &str, text: &str) -> Self {
        self.parameter(name, text, true, schemas.input::<T>())
    }

    /// Adds an optional parameter. With an `Option` for `T` it can also be null.
    #[must_use]
    pub fn optional<T: JsonSchema>(self, schemas: &mut Schemas, name: &str, text: &str) -> Self {
        self.parameter(name, text, false, schemas.input::<T>())
    }

    /// Sets the type of the result.
    #[must_use]
    pub fn result<T: JsonSchema>(mut self, schemas: &mut Schemas) -> Self {
        self.result.schema = schemas.output::<T>();
        self
    }

    fn parameter(mut self, name: &str, text: &str, required: bool, schema: Value) -> Self {
        self.params.push(Parameter {
            name: name.to_owned(),
            description: text.to_owned(),
            required,
            schema,
        });
        self
    }

    /// Sorts the parameters as OpenRPC requires: optional parameters after required ones.
    ///
    /// Python's order differs for a few methods (`sendto(data[, flags], address)`). The broker also accepts
    /// their parameters by position, but this list cannot express it, so it promises names only.
    fn put_required_first(&mut self) {
        if !self.params.is_sorted_by_key(|parameter| !parameter.required) {
            self.params.sort_by_key(|parameter| !parameter.required);
            self.param_structure = "by-name";
        }
    }

    /// The method that OpenRPC itself defines.
    fn discover() -> Self {
        let mut method = Self::new("rpc.discover", "Returns this document.");
        method.result.schema = json!({
            "title": "OpenRPC document",
            "type": "object",
            "required": ["openrpc", "info", "methods"],
        });
        method
    }
}

/// Collects the schemas of all types that parameters and results refer to.
#[derive(Debug)]
pub struct Schemas {
    input: SchemaGenerator,
    output: SchemaGenerator,
}

/// The path of definitions in references.
const PATH: &str = "#/components/schemas/";

struct Definitions {
    schemas: Map<String, Value>,
    /// The new names of input types whose name an output type also has.
    renamed: BTreeMap<String, String>,
}

impl Default for Schemas {
    fn default() -> Self {
        Self::new()
    }
}

impl Schemas {
    /// An empty collection.
    pub fn new() -> Self {
        let settings = SchemaSettings::draft07().with(|settings| {
            settings.definitions_path = "/components/schemas".into();
        });
        Self {
            input: settings.clone().for_deserialize().into_generator(),
            output: settings.for_serialize().into_generator(),
        }
    }

    /// The schema of a parameter: what `T` can be read from.
    pub fn input<T: JsonSchema>(&mut self) -> Value {
        inline_or_reference::<T>(&mut self.input)
    }

    /// The schema of a result: what `T` is written as.
    pub fn output<T: JsonSchema>(&mut self) -> Value {
        inline_or_reference::<T>(&mut self.output)
    }

    /// All definitions, with the input form of a type that has two renamed to `..Input`.
    fn into_definitions(mut self) -> Definitions {
        let input = self.input.take_definitions(true);
        let mut schemas = self.output.take_definitions(true);

        let mut renamed = BTreeMap::new();
        // A type that refers to a renamed type differs by the reference: repeat until no more are found.
        loop {
            let before = renamed.len();
            for (name, definition) in &input {
                let mut definition = definition.clone();
                redirect(&mut definition, &renamed);
                if schemas.get(name).is_some_and(|output| *output != definition) {
                    renamed
                        .entry(name.clone())
                        .or_insert_with(|| free_name(name, [&input, &schemas]));
                }
            }
            if renamed.len() == before {
                break;
            }
        }
        for (name, mut definition) in input {
            redirect(&mut definition, &renamed);
            let name = renamed.get(&name).cloned().unwrap_or(name);
            schemas.insert(name, definition);
        }
        Definitions { schemas, renamed }
    }
}

/// A reference to an error of `components.errors`.
fn reference(error: &str) -> Value {
    json!({ "$ref": format!("#/components/errors/{error}") })
}

fn inline_or_reference<T: JsonSchema>(generator: &mut SchemaGenerator) -> Value {
    let mut schema: Schema = generator.subschema_for::<T>();
    for transform in generator.transforms_mut() {
        transform.transform(&mut schema);
    }
    schema.to_value()
}

fn free_name(name: &str, taken: [&Map<String, Value>; 2]) -> String {
    let mut free = format!("{name}Input");
    while taken.iter().any(|names| names.contains_key(&free)) {
        free.push('_');
    }
    free
}

/// Updates references to renamed definitions.
fn redirect(schema: &mut Value, renamed: &BTreeMap<String, String>) {
    match schema {
        Value::Object(members) => {
            for (key, member) in members {
                match member {
                    Value::String(target) if key == "$ref" => {
                        let new = target.strip_prefix(PATH).and_then(|name| renamed.get(name));
                        if let Some(new) = new {
                            *target = format!("{PATH}{new}");
                        }
                    }
                    other => redirect(other, renamed),
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                redirect(item, renamed);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use schemars::JsonSchema;
    use serde::{Deserialize, Serialize};
    use serde_json::{Value, json};

    use super::{Method, Schemas, document};

    /// Optional on input only, hence two schemas.
    #[derive(JsonSchema, Serialize, Deserialize)]
    struct Uneven {
        #[serde(default)]
        #[schemars(with = "u8")]
        value: u8,
    }

    /// Differs by the type that it refers to.
    #[derive(JsonSchema, Serialize, Deserialize)]
    struct Holder {
        uneven: Uneven,
    }

    #[derive(JsonSchema, Serialize, Deserialize)]
    struct Even {
        value: u8,
    }

    fn methods(schemas: &mut Schemas) -> Vec<Method> {
        vec![
            Method::new("socket.b", "Does. And more.\n\nMuch more.")
                .required::<Holder>(schemas, "holder", "What.")
                .required::<Even>(schemas, "even", "What.")
                .optional::<Option<u8>>(schemas, "number", "How many.")
                .result::<Option<Holder>>(schemas),
            Method::new("socket.a", "Old.")
                .deprecated()
                .required::<(u8, Even)>(schemas, "pair", "Which.")
                .result::<Even>(schemas),
        ]
    }

    fn built() -> Value {
        let errors = json!({ "E": { "code": 1 } });
        let errors_of = |name: &str, handles: bool| {
            if name == "socket.b" && !handles { vec!["E"] } else { vec![] }
        };
        document([methods as super::Namespace], errors, errors_of, "1.2.3")
    }

    #[test]
    fn methods_are_sorted_and_rpc_discover_is_among_them() {
        let document = built();
        let names: Vec<&Value> =
            document["methods"].as_array().unwrap().iter().map(|method| &method["name"]).collect();
        assert_eq!(names, ["rpc.discover", "socket.a", "socket.b"]);
        assert_eq!(document["openrpc"], "1.3.2");
        assert_eq!(document["info"]["version"], "1.2.3");
        assert_eq!(document["components"]["errors"]["E"]["code"], 1);
    }

    #[test]
    fn a_method_is_an_openrpc_method_object() {
        let document = built();
        let even = json!({ "$ref": "#/components/schemas/Even" });
        assert_eq!(
            document["methods"][2],
            json!({
                "name": "socket.b",
                "summary": "Does",
                "description": "Does. And more.\n\nMuch more.",
                "paramStructure": "either",
                "params": [
                    {
                        "name": "holder",
                        "description": "What.",
                        "required": true,
                        "schema": { "$ref": "#/components/schemas/HolderInput" },
                    },
                    { "name": "even", "description": "What.", "required": true, "schema": even },
                    {
                        "name": "number",
                        "description": "How many.",
                        "required": false,
                        "schema": {
                            "title": "SocketBNumber",
                            "type": ["integer", "null"], "minimum": 0, "maximum": 255
                        },
                    },
                ],
                "result": {
                    "name": "result",
                    "schema": { "title": "SocketBResult", "anyOf": [
                        { "$ref": "#/components/schemas/Holder" },
                        { "title": "SocketBResultChoice2", "type": "null" }
                    ] },
                },
                "errors": [{ "$ref": "#/components/errors/E" }],
            })
        );
        assert_eq!(document["methods"][1]["deprecated"], true);
    }

    #[test]
    fn type_with_two_forms_has_two_names() {
        let document = built();
        let schemas = document["components"]["schemas"].as_object().unwrap();
        let names: Vec<&String> = schemas.keys().collect();
        assert_eq!(names, ["Even", "Holder", "HolderInput", "Uneven", "UnevenInput"]);
        let mentioned = |name: &str| schemas[name]["properties"]["uneven"]["$ref"].clone();
        assert_eq!(mentioned("Holder"), "#/components/schemas/Uneven");
        assert_eq!(mentioned("HolderInput"), "#/components/schemas/UnevenInput");
        assert_eq!(schemas["Uneven"]["required"], json!(["value"]));
        assert_eq!(schemas["UnevenInput"].get("required"), None);
    }

    #[test]
    fn inline_schemas_are_draft_7() {
        let document = built();
        let pair = &document["methods"][1]["params"][0]["schema"];
        assert!(pair.get("items").is_some_and(Value::is_array), "{pair}");
        assert_eq!(pair.get("prefixItems"), None);
    }

    #[test]
    fn reordered_parameters_are_promised_by_name_only() {
        fn sendto(schemas: &mut Schemas) -> Vec<Method> {
            let method = Method::new("socket.sendto", "Sends.")
                .required::<u8>(schemas, "data", "What.")
                .optional::<Option<u8>>(schemas, "flags", "How.")
                .required::<u8>(schemas, "address", "Where.");
            vec![method]
        }
        let document = document([sendto as super::Namespace], json!({}), |_, _| vec![], "1");
        let method = &document["methods"][1];
        assert_eq!(method["paramStructure"], "by-name");
        let names = ["data", "address", "flags"];
        for (index, name) in names.into_iter().enumerate() {
            assert_eq!(method["params"][index]["name"], name);
        }
    }
}
