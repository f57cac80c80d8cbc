//! HTTP, only to say that this is no web server.
//!
//! A browser that wanders in gets a short page. Nothing that a page can make a browser send
//! reaches a command: the request is not even read to its end.

/// The methods of RFC 9110, section 9, and PATCH of RFC 5789.
const METHODS: [&[u8]; 9] =
    [b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH"];

/// Whether the first bytes of a connection are an HTTP method and a space; `None` while they
/// could still become that.
pub fn sniff(bytes: &[u8]) -> Option<bool> {
    let is_method = |method: &&[u8]| {
        bytes.strip_prefix(*method).is_some_and(|rest| rest.first() == Some(&b' '))
    };
    if METHODS.iter().any(is_method) {
        return Some(true);
    }
    let could_be = METHODS.iter().any(|method| method.starts_with(bytes));
    (!could_be).then_some(false)
}

/// Whether a line is a request line: `METHOD target HTTP/1.1`.
pub fn is_request_line(line: &[u8]) -> bool {
    sniff(line) == Some(true) && memchr::memmem::find(line, b" HTTP/").is_some()
}

/// The whole answer: status 421 (RFC 9110, section 15.5.20), a page, and the end.
pub fn page() -> String {
    let body = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>sixfour</title>\n\
                <p>This port speaks sixfour, not HTTP: messages, files and commands between named \
                peers.\n<p>Use its <code>client</code>, or <code>nc</code> and type \
                <code>help</code>.\n</html>\n";
    format!(
        "HTTP/1.1 421 Misdirected Request\r\n\
         Content-Type: text/html; charset=utf-8\r\n\
         Content-Length: {}\r\n\
         Content-Security-Policy: default-src 'none'\r\n\
         X-Content-Type-Options: nosniff\r\n\
         Cache-Control: no-store\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_and_a_space_are_http_whatever_follows() {
        for yes in [&b"GET / HTTP/1.1\r\n"[..], b"POST /x", b"OPTIONS ", b"PATCH \0"] {
            assert_eq!(sniff(yes), Some(true));
        }
        for open in [&b""[..], b"G", b"GET", b"OPTION", b"P"] {
            assert_eq!(sniff(open), None);
        }
        for no in [&b"get / "[..], b"GETX", b"Go", b"hello|bob", b"GET\n"] {
            assert_eq!(sniff(no), Some(false));
        }
    }

    #[test]
    fn the_page_is_as_long_as_it_says() {
        let page = page();
        let (head, body) = page.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.contains(&format!("Content-Length: {}", body.len())));
    }
}
