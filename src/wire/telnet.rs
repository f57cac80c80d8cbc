//! What telnet clients put among the lines that people type (RFC 854): offers of options, and keys
//! that are no characters.
//!
//! A command begins with the byte 0xff, which is in no UTF-8. Nothing is answered, so that every
//! option stays as it is at the beginning: lines, edited and echoed where they are typed.

/// Interpret as command: begins one, and stands twice where the byte itself is meant.
pub const IAC: u8 = 255;
const SUBNEGOTIATION: u8 = 250;
const SUBNEGOTIATION_END: u8 = 240;
const WILL: u8 = 251;
const DONT: u8 = 254;

/// Appends `line` without the commands in it; one that is not whole ends with the line.
pub fn put_without_commands(mut line: &[u8], out: &mut Vec<u8>) {
    while let Some(at) = memchr::memchr(IAC, line) {
        out.extend_from_slice(&line[..at]);
        let rest = &line[at + 1..];
        let used = match rest.first() {
            Some(&IAC) => {
                out.push(IAC);
                1
            }
            Some(&(SUBNEGOTIATION_END..SUBNEGOTIATION)) => 1,
            Some(&(WILL..=DONT)) => 2,
            Some(&SUBNEGOTIATION) => {
                let end = memchr::memmem::find(rest, &[IAC, SUBNEGOTIATION_END]);
                end.map_or(rest.len(), |end| end + 2)
            }
            // No command: a byte that has no place in a line, and is told as that.
            None | Some(_) => {
                out.push(IAC);
                0
            }
        };
        line = &rest[used.min(rest.len())..];
    }
    out.extend_from_slice(line);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_of_every_length_are_taken_out_and_all_else_stays() {
        for (line, rest) in [
            (&b"user alice"[..], &b"user alice"[..]),
            // The first bytes of PuTTY.
            (
                b"\xff\xfb\x1f\xff\xfb\x20\xff\xfb\x18\xff\xfb\x27\xff\xfd\x01\xff\xfb\x03who",
                b"who",
            ),
            // The interrupt key, and the mark behind it.
            (b"wh\xff\xf4\xff\xfd\x06o", b"who"),
            (b"\xff\xfa\x18\x00xterm\xff\xf0who", b"who"),
            (b"a\xff\xffb", b"a\xffb"),
            (b"a\xff", b"a\xff"),
            (b"a\xff b\xffb", b"a\xff b\xffb"),
            (b"a\xff\xfb", b"a"),
            (b"a\xff\xfa\x1f\0P", b"a"),
            (b"gr\xc3\xbcn", b"gr\xc3\xbcn"),
        ] {
            let mut out = Vec::new();
            put_without_commands(line, &mut out);
            assert_eq!(out, rest);
        }
    }
}
