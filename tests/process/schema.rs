//! The schema of the JSON dialect, for the tests that hold objects against it.

use std::fs;

use jsonschema::Validator;
use serde_json::Value;

/// What the schema says of one of its definitions.
pub fn schema(definition: &str) -> Validator {
    let text = fs::read_to_string("protocol.schema.json").expect("the schema is there");
    let mut schema: Value = serde_json::from_str(&text).expect("the schema is JSON");
    schema["$ref"] = format!("#/$defs/{definition}").into();
    jsonschema::draft202012::new(&schema).expect("the schema is a schema")
}

pub fn assert_valid(schema: &Validator, object: &Value, place: &str) {
    let faults: Vec<String> = schema.iter_errors(object).map(|it| it.to_string()).collect();
    assert!(faults.is_empty(), "{place}: {object}: {faults:#?}");
}
