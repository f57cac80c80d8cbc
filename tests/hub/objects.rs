//! JSON sessions at the table: requests and replies as objects.

use serde_json::{Value, json};
use sixfour::hub::{ConnectionId, OperationId};

use crate::table::Table;

/// A session that has logged in under this name.
pub fn named(table: &mut Table, name: &str) -> ConnectionId {
    let id = table.open();
    let reply = ask(table, id, json!({"op": "login", "user": name, "id": 0}));
    assert_eq!(reply[0]["user"], name);
    id
}

/// The objects of an answer.
pub fn objects(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("one object a line")).collect()
}

/// What a request is answered with at once.
pub fn ask(table: &mut Table, id: ConnectionId, request: Value) -> Vec<Value> {
    objects(&table.say(id, request.to_string()))
}

/// Begins what a request asks for, which says nothing at once.
pub fn run(table: &mut Table, id: ConnectionId, request: Value) -> OperationId {
    assert_eq!(ask(table, id, request), [json!(null); 0]);
    table.started()
}
