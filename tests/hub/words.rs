//! What a hostile peer says: every frame, object and line there is, good, odd and cut short.

#![allow(dead_code, reason = "every user takes what it needs")]

use sixfour::{
    limits::REQUEST_BODY_MAX_BYTES,
    wire::{Dialect, frame},
};

/// What decides: the bytes of a fuzzer, or chance from a seed.
pub trait Dice {
    /// A number below this one, which is not 0.
    fn below(&mut self, count: usize) -> usize;

    /// Whether nothing is left to decide by.
    fn is_over(&self) -> bool {
        false
    }

    /// Whether one of so many cases is at hand.
    fn one_in(&mut self, count: usize) -> bool {
        !self.is_over() && self.below(count) == 0
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

/// Those who speak so are nobody's friends; the others are names that they may try to take.
pub const HOSTILE: [&str; 3] = ["h0", "h1", "h2"];
const NAMES: [&str; 8] = ["h0", "h1", "h2", "h0,h1", "alice", "bob", "nobody", "*"];

/// What follows the name of the operation in an object. `#` stands for a small number, `@` for a
/// name.
const OPERATIONS: [&str; 46] = [
    r#""download","path":"a/b""#,
    r#""download","path":{"base64":"/w=="}"#,
    r#""download","path":"../x""#,
    r#""fetch","paths":["a","*.c"]"#,
    r#""fetch","paths":[]"#,
    r#""store""#,
    r#""store","into":"x""#,
    r#""upload","path":"x","data":"abc""#,
    r#""upload","path":"..","data":"abc""#,
    r#""run","command":"c","stdin":true"#,
    r#""run","command":"c","timeout_ms":#"#,
    r#""run","command":"c","stdin":true,"interpreter":"dos","timeout_ms":18446744073709551615"#,
    r#""run","command":"c","stdin":"some input""#,
    r#""ls""#,
    r#""ls","path":"d""#,
    r#""who""#,
    r#""announce","udp_port":70#"#,
    r#""echo","text":"e\u0000\ud83d\ude00""#,
    r#""help""#,
    r#""edge.join","udp_port":6000"#,
    r#""edge.upload","file_id":#"#,
    r#""edge.upload","file_id":#,"samples":[1,-2]"#,
    r#""edge.compute","file_id":#,"computation":"SUM""#,
    r#""edge.delete","file_id":#"#,
    r#""edge.list""#,
    r#""edge.leave""#,
    r#""ip""#,
    r#""info","interval_ms":100"#,
    r#""ping""#,
    r#""ping","host":"::1""#,
    r#""python-version""#,
    r#""clear""#,
    r#""disconnect""#,
    r#""reset""#,
    r#""kill""#,
    r#""send","to":"@","name":"n","size":###"#,
    r#""send","to":"@","name":"n","size":0"#,
    r#""send","to":"@","name":"n","form":"conversation""#,
    r#""send","to":"@","name":"d","folder":true,"files":7,"size":18446744073709551615"#,
    r#""send","to":"@","name":"n","data":"0123456789""#,
    r#""send","to":"@","name":"n","size":5,"introduction":{"key":"x"}"#,
    r#""accept","offer":#"#,
    r#""accept","offer":#,"form":"conversation","introduction":{}"#,
    r#""refuse","offer":#,"reason":"r""#,
    r#""cancel","target":#"#,
    r#""message","to":["@"],"text":"t""#,
];

const LINES: [&str; 30] = [
    "user @",
    "user @ password",
    "msg @ some text",
    "text|@",
    "download a/b",
    "upload ### x",
    "upload 0 x",
    "upload 18446744073709551615 x",
    "upload 5 ../x",
    "run c",
    "ls",
    "send ### n @",
    "send 0 n @",
    "send 18446744073709551615 n @",
    "accept #",
    "accept 4294967295",
    "refuse # r",
    "who",
    "echo e",
    "edge.upload # 1 2",
    "edge.compute # SUM",
    "info",
    "ping ::1",
    "Linux:c",
    "disconnect",
    "reset",
    "kill",
    "Host: x",
    "\u{feff}",
    "quit",
];

/// Something in this dialect, or something else.
pub fn say(dice: &mut impl Dice, dialect: Dialect) -> Vec<u8> {
    let mut said = match dialect {
        Dialect::Frame => frame_of_any_kind(dice),
        Dialect::Json => object(dice, true).into_bytes(),
        Dialect::Line => {
            let line = fill(dice, LINES);
            let end = dice.pick(&["\n", "\n", "\r\n"]);
            format!("{line}{end}").into_bytes()
        }
    };
    match dice.below(24) {
        0 => said.truncate(dice.below(said.len() + 1)),
        1 => said.extend(std::iter::repeat_n(b'x', 1 + dice.below(200))),
        2 if !said.is_empty() => {
            let at = dice.below(said.len());
            said[at] = dice.below(256) as u8;
        }
        _ => {}
    }
    said
}

/// The first words of somebody with a name.
pub fn greet(dice: &mut impl Dice, dialect: Dialect) -> Vec<u8> {
    if dice.one_in(16) {
        return dice.pick(&[&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x16\x03\x01\x02\x00"]).to_vec();
    }
    let name = dice.pick(&HOSTILE);
    let password = if dice.one_in(2) { ",\"password\":\"p\"" } else { "" };
    match dialect {
        Dialect::Line if password.is_empty() => format!("user {name}\n").into_bytes(),
        Dialect::Line => format!("user {name} p\n").into_bytes(),
        Dialect::Json => {
            format!(r#"{{"op":"login","user":"{name}"{password},"id":0}}"#).into_bytes()
        }
        Dialect::Frame => {
            let mut out = frame::MAGIC.to_vec();
            let body = format!(r#"{{"version":1,"user":"{name}"{password}}}"#);
            frame::put(&mut out, frame::client::HELLO, 0, body.as_bytes());
            out
        }
    }
}

fn frame_of_any_kind(dice: &mut impl Dice) -> Vec<u8> {
    use frame::client::*;
    let kinds = [
        REQUEST,
        REQUEST,
        REQUEST,
        REQUEST,
        MESSAGE,
        DATA,
        DATA,
        DATA,
        END,
        CREDIT,
        CREDIT,
        CANCEL,
        ACKNOWLEDGE,
        PING,
        PONG,
        END,
    ];
    let kind = match dice.below(20) {
        0 => dice.below(256) as u8,
        1 => dice.pick(&[HELLO, GOODBYE]),
        _ => dice.pick(&kinds),
    };
    let number = match dice.below(20) {
        0 => u32::MAX,
        _ => dice.below(6) as u32,
    };
    let body = match kind {
        REQUEST => object(dice, false).into_bytes(),
        HELLO => br#"{"version":1,"user":"h0"}"#.to_vec(),
        MESSAGE => {
            let mut out = Vec::new();
            let to = dice.pick(&NAMES);
            frame::put_message(&mut out, kind, number, to.as_bytes(), "text");
            return out;
        }
        DATA => vec![b'x'; dice.below(256) << dice.below(3)],
        END if dice.one_in(3) => vec![7; 32],
        CREDIT => match dice.below(8) {
            0 => vec![0xff; 4],
            _ => (dice.below(1000) as u32).to_be_bytes().to_vec(),
        },
        _ if dice.one_in(16) => vec![0; dice.below(40)],
        _ => Vec::new(),
    };
    let mut out = Vec::new();
    frame::put(&mut out, kind, number, &body[..body.len().min(REQUEST_BODY_MAX_BYTES)]);
    out
}

fn object(dice: &mut impl Dice, has_id: bool) -> String {
    let members = fill(dice, OPERATIONS);
    let id = if has_id { format!(r#","id":{}"#, dice.below(6)) } else { String::new() };
    let odd = match dice.below(40) {
        0 => r#","path":7"#,
        1 => r#","odd":[{},[null]]"#,
        2 => r#","op":"echo""#,
        3 => r#","stdin":{}"#,
        4 => r#","size":-1"#,
        5 => r#","id":[]"#,
        _ => "",
    };
    format!(r#"{{"op":{members}{id}{odd}}}"#)
}

fn fill<const COUNT: usize>(dice: &mut impl Dice, of: [&str; COUNT]) -> String {
    let pattern = dice.pick(&of);
    let mut out = String::new();
    for part in pattern.chars() {
        match part {
            '#' => out.push_str(dice.pick(&["1", "2", "3", "4", "5"])),
            '@' => out.push_str(dice.pick(&NAMES)),
            other => out.push(other),
        }
    }
    out
}
