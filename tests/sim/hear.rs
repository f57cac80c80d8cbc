//! How a peer judges what it hears.

use super::*;

impl Peer {
    pub(super) fn hear_frame(&mut self, bytes: &[u8], office: &mut Office, lost: bool) -> usize {
        let said = frame::decode_said(bytes).expect("the hub's frames are good");
        let Some((said, used)) = said else { return 0 };
        match said {
            Said::Welcome(welcome) => {
                assert_eq!(welcome.user, name_of(self.name));
                self.welcomed = true;
            }
            Said::Message { from, text, serial } => {
                let pair = (self.name, number_of(from.as_str()));
                office.receive(pair, text, false, &mut self.last);
                if serial != 0 && !lost {
                    assert!(!self.unacknowledged.contains(&serial), "serials are unique");
                    self.unacknowledged.push(serial);
                    if !self.rude {
                        self.acknowledge();
                    }
                }
            }
            Said::Detail(tag, detail) => {
                if !self.hear_of_parcel(tag, &detail) {
                    self.hear_detail(tag, &detail);
                }
            }
            Said::Data(tag, stream, bytes) => {
                let is_stingy = self.stingy;
                let call = self.find(tag);
                call.take_data(bytes, Some(stream));
                call.withheld += bytes.len();
                assert!(call.withheld <= LIMITS.output_window_bytes as usize, "credit is kept");
                if !is_stingy {
                    let credit = std::mem::take(&mut call.withheld) as u32;
                    self.frame(client::CREDIT, tag, &credit.to_be_bytes());
                }
            }
            Said::End(tag, outcome) => {
                self.judge_missing_offer(tag, &outcome);
                let call = self.find(tag);
                call.judge_end(&outcome, &mut office.depot);
                self.calls.retain(|call| call.tag != tag);
            }
            Said::Credit(tag, bytes) => {
                let call = self.find(tag);
                call.input_room += bytes as usize;
                assert!(call.input_room <= call.window, "too much credit");
            }
            Said::Error(tag, body) => self.hear_error(tag, body.code, &body.text, office),
            Said::Delivered(tag, body) => {
                office.deliver(self.life, tag, number_of(body.to.as_str()));
            }
            Said::Ping(_) => {
                self.pings += 1;
                if !self.mute && !lost {
                    self.frame(client::PONG, 0, b"");
                }
            }
            Said::Pong(number) => assert_eq!(number, 7),
            Said::Goodbye(why) => {
                if why.is_some_and(|why| why.code == ErrorCode::Busy) {
                    self.refused_logins.push("busy login");
                }
                self.said_goodbye = true;
            }
        }
        used
    }

    pub(super) fn hear_detail(&mut self, tag: u32, detail: &DetailBody<'_>) {
        let call = self.find(tag);
        match (detail, &call.asked) {
            (DetailBody::File { size, .. }, Asked::Work(What::File { size: wanted, .. })) => {
                assert_eq!(*size as usize, *wanted);
                call.announced = true;
            }
            (DetailBody::File { size, .. }, Asked::Take(parcel)) => {
                assert_eq!(*size as usize, parcel.size);
                call.announced = true;
            }
            (DetailBody::Entries { entries }, Asked::Work(What::Folder { .. })) => {
                call.got += entries.len();
            }
            (DetailBody::Users { names }, Asked::Who) => call.got += names.len(),
            (DetailBody::Text { text }, Asked::Echo(wanted)) => assert_eq!(text, wanted),
            (DetailBody::Text { .. }, Asked::Help) => {}
            (DetailBody::Text { text }, Asked::Work(What::Question { .. })) => {
                assert_eq!(*text, fact(call.got));
                call.got += 1;
            }
            (DetailBody::Object { object }, Asked::Work(What::Question { .. })) => {
                assert_eq!(object["fact"], fact(call.got));
                call.got += 1;
            }
            other => panic!("that answers nothing: {other:?}"),
        }
    }

    /// An error about letters, or about the connection as a whole.
    pub fn hear_error(&mut self, tag: u32, code: ErrorCode, text: &str, office: &mut Office) {
        let first = text.split(' ').next().expect("there is a first word");
        let life = self.life;
        match code {
            ErrorCode::PeerBusy => office.refuse(life, tag, number_of(first), 1),
            ErrorCode::NoSuchUser if text.starts_with("nobody else") => {}
            ErrorCode::NoSuchUser => {
                let name = text.split('`').nth(1).expect("the name stands in the error");
                office.refuse(life, tag, number_of(name), 1);
            }
            ErrorCode::BadArguments => office.refuse(life, tag, self.name, 1),
            ErrorCode::NotDelivered => {
                let count = text.split(" did not get ").nth(1).expect("it says what is lost");
                let count = count.split(' ').next().and_then(|it| it.parse().ok()).unwrap_or(1);
                office.refuse(life, tag, number_of(first), count);
            }
            ErrorCode::ShuttingDown => {}
            // The rest of what it says is of no account: it has no name to say it with.
            ErrorCode::NotNamed if self.dialect != Dialect::Frame => {}
            ErrorCode::NameTaken if self.is_line() => self.leave(),
            ErrorCode::LoginRequired | ErrorCode::LoginFailed | ErrorCode::Blocked
                if self.is_line() && !self.welcomed =>
            {
                self.is_refused = true;
                self.refused_logins.push(code.as_str());
            }
            other => panic!("nobody asked for this: {other}: {text}"),
        }
    }

    pub(super) fn hear_line(&mut self, bytes: &[u8], office: &mut Office, lost: bool) -> usize {
        if self.file_left > 0 {
            let part = &bytes[..bytes.len().min(self.file_left)];
            self.calls[0].take_data(part, None);
            assert!(!self.calls[0].wrong_bytes, "lines cannot tell that a file is wrong");
            self.file_left -= part.len();
            if self.file_left == 0 {
                self.end_file(&mut office.depot);
            }
            return part.len();
        }
        let Some(end) = memchr::memchr(b'\n', bytes) else { return 0 };
        self.took = false;
        let line = std::str::from_utf8(&bytes[..end]).expect("lines are text");
        match (line.as_bytes().first(), line.split_once('|')) {
            (Some(b'p'), Some((from, text))) => {
                let pair = (self.name, number_of(from));
                office.receive(pair, text, true, &mut self.last);
            }
            _ if line.starts_with("error ") => self.hear_error_line(line, office),
            _ if self.hear_offer_line(line) => {}
            _ if line == "goodbye" => self.said_goodbye = true,
            _ if line.starts_with("welcome ") => self.welcomed = true,
            _ if line.starts_with("accepted p") || line == "delivered" => {
                self.hear_passing(line, &mut office.depot);
            }
            _ if !lost || !self.calls.is_empty() => self.hear_answer(line, &mut office.depot),
            _ => panic!("that answers nothing: {line}"),
        }
        end + 1
    }

    pub(super) fn hear_error_line(&mut self, line: &str, office: &mut Office) {
        let (code, text) = line["error ".len()..].split_once(": ").expect("a code and a text");
        let code: ErrorCode = serde_json::from_str(&format!("\"{code}\"")).expect("a known code");
        use ErrorCode::*;
        if self.hear_parcel_error(code, text, &mut office.depot) {
            return;
        }
        let is_refused_start = code == ShuttingDown && text == "the server is stopping";
        match code {
            Busy if !self.welcomed => {
                self.is_refused = true;
                self.refused_logins.push("busy login");
            }
            LoginRequired if self.welcomed => self.said_goodbye = true,
            NoSuchFile | CannotStart | FileChanged | Busy => drop(self.calls.pop_front()),
            _ if is_refused_start => drop(self.calls.pop_front()),
            TimedOut | Protocol | SlowConsumer | Replaced | Reset => self.said_goodbye = true,
            _ => self.hear_error(0, code, text, office),
        }
    }

    /// The last byte of a file is there.
    fn end_file(&mut self, depot: &mut Depot) {
        let call = self.calls.pop_front().expect("it was asked for");
        if let Asked::Take(parcel) = &call.asked {
            self.took = true;
            crate::parcels::note_arrival(parcel, call.got, depot);
        }
    }

    /// A line of the answer to the oldest call.
    pub(super) fn hear_answer(&mut self, line: &str, depot: &mut Depot) {
        assert!(!self.is_cut, "{line} comes after output that broke off");
        let call = self.calls.front_mut().unwrap_or_else(|| panic!("that answers nothing: {line}"));
        let mut is_over = line.starts_with('[');
        match &call.asked {
            Asked::Work(What::File { size, .. }) => {
                assert_eq!(line, format!("file {size} {}", line.split(' ').nth(2).expect("name")));
                call.announced = true;
                self.file_left = *size;
                is_over = *size == 0;
            }
            Asked::Take(parcel) => {
                let size = parcel.size;
                assert_eq!(line, format!("file {size} g{}.{size}", parcel.id));
                call.announced = true;
                self.file_left = size;
                if size == 0 {
                    self.end_file(depot);
                }
                return;
            }
            Asked::Work(What::Output { total, seed }) if is_over => {
                assert_eq!(call.got, *total, "all output comes before the end");
                let ending = match exit_of(*seed) {
                    Ok(code) => format!("[exit {code}]"),
                    Err(number) => format!("[signal {number}]"),
                };
                assert_eq!(line, ending);
            }
            Asked::Work(What::Output { total, seed }) => {
                let (total, seed) = (*total, *seed);
                call.take_data(line.as_bytes(), None);
                // The hub ends the last line where the command did not. Where it ends another, it
                // has ended the whole session.
                assert!(call.got <= total);
                match call.got < total && output_byte(seed, call.got) == b'\n' {
                    true => call.got += 1,
                    false => self.is_cut = call.got < total,
                }
            }
            Asked::Work(What::Folder { entries }) if is_over => {
                assert_eq!((call.got, line), (*entries, &*format!("[{entries} entries]")));
            }
            Asked::Who if is_over => assert_eq!(line, format!("[{} users]", call.got)),
            Asked::Work(What::Folder { .. }) | Asked::Who => call.got += 1,
            Asked::Work(What::Question { pieces }) => {
                assert!(line.contains(&fact(call.got)), "{line} is not the next piece");
                call.got += 1;
                is_over = call.got == *pieces;
            }
            Asked::Clear => {
                assert_eq!(line.as_bytes(), &CLEAR[..CLEAR.len() - 1]);
                is_over = true;
            }
            Asked::Echo(text) => {
                assert_eq!(line, text);
                is_over = true;
            }
            Asked::Help => is_over = line.starts_with("quit"),
            other => panic!("{line} answers {other:?}"),
        }
        if is_over {
            self.calls.pop_front();
        }
    }
}
