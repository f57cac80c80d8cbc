//! Who one is to the server: passwords known, asked for and refused.

use super::*;

/// A client before its welcome, which can be asked at a terminal or not.
fn stranger(style: Style, password: Option<&'static str>, can_ask: bool) -> Table {
    let setup = Setup { style, user: name("alice-3f9a1c"), ..Table::new(style).brain.setup };
    let account = Some(name("alice"));
    let login = Login { account, password: password.map(Secret::from), can_ask, asks_first: false };
    Table { brain: Brain::with_login(setup, login, 0), now_ms: 0 }
}

impl Table {
    /// The hello that waits for the socket: name and password.
    fn hello(&mut self) -> (String, Option<String>) {
        let link = self.brain.link().expect("a link");
        let bytes = link.outgoing().to_vec();
        link.advance(bytes.len());
        let item = frame::decode(&bytes[frame::MAGIC.len()..]).expect("a frame").expect("whole");
        let Ok(Request::Login { name, password }) = item.request else { panic!("no hello") };
        (name.to_string(), password.map(|it| it.reveal().to_owned()))
    }

    fn goodbye(&mut self, code: ErrorCode) -> Vec<Effect> {
        self.say(Event::Goodbye(Some(&refusal(code))));
        self.effects()
    }
}

fn asks(effects: &[Effect], why: Option<&str>) -> bool {
    let ask = Effect::Ask { user: name("alice"), why: why.map(str::to_owned) };
    effects.contains(&Effect::Disconnect) && effects.last() == Some(&ask)
}

#[test]
fn a_known_password_goes_with_the_first_hello_and_under_the_own_name() {
    let mut table = stranger(Style::Verb, Some("secret"), true);
    assert_eq!(table.hello(), ("alice".to_owned(), Some("secret".to_owned())));
    // A wrong one that nobody has typed is not asked for.
    let effects = table.goodbye(ErrorCode::LoginFailed);
    assert_eq!(effects.last(), Some(&Effect::Leave(exit::REFUSED)));
    let mut table = stranger(Style::Verb, None, true);
    assert_eq!(table.hello(), ("alice-3f9a1c".to_owned(), None));
}

#[test]
fn a_password_is_asked_for_when_the_server_wants_one_and_again_after_a_wrong_one() {
    for style in [Style::Prompt, Style::Piped, Style::Verb] {
        let mut table = stranger(style, None, true);
        table.hello();
        assert!(asks(&table.goodbye(ErrorCode::LoginRequired), None));
        assert_eq!(table.brain.poll_timeout_ms(), None, "people take their time");
        table.brain.handle_password(Some(Secret::from("")));
        assert!(matches!(table.effects()[..], [Effect::Ask { why: None, .. }]));
        table.brain.handle_password(Some(Secret::from("guess")));
        assert_eq!(table.effects(), [Effect::Connect]);
        table.brain.handle_connected(5);
        assert_eq!(table.hello(), ("alice".to_owned(), Some("guess".to_owned())));
        assert!(asks(&table.goodbye(ErrorCode::LoginFailed), Some("so it is")));
        table.brain.handle_password(Some(Secret::from("secret")));
        table.effects();
        table.brain.handle_connected(6);
        assert_eq!(table.hello().1, Some("secret".to_owned()));
        table.say(Event::Welcome { name: name("alice") });
        assert_eq!(table.effects().last(), Some(&Effect::Next), "{style:?}");
    }
}

#[test]
fn a_blocked_name_ends_the_client_with_the_reason() {
    let mut table = stranger(Style::Verb, None, true);
    table.goodbye(ErrorCode::LoginRequired);
    table.brain.handle_password(Some(Secret::from("guess")));
    table.brain.handle_connected(5);
    let effects = table.goodbye(ErrorCode::Blocked);
    let shown = Shown::Error { code: "blocked", text: "so it is".to_owned() };
    assert!(effects.contains(&Effect::Show(shown, None)), "{effects:?}");
    assert_eq!(effects.last(), Some(&Effect::Leave(exit::REFUSED)));
}

#[test]
fn where_nobody_can_be_asked_the_ways_to_give_a_password_are_named() {
    for (can_ask, typed) in [(false, false), (true, true)] {
        let mut table = stranger(Style::Verb, None, can_ask);
        let mut effects = table.goodbye(ErrorCode::LoginRequired);
        if typed {
            table.brain.handle_password(None);
            effects = table.effects();
        } else {
            let Effect::Show(Shown::Error { text, .. }, _) = &effects[0] else { panic!() };
            assert!(text.contains("--password-file") && text.contains("SIXFOUR_PASSWORD"));
        }
        assert_eq!(effects.last(), Some(&Effect::Leave(exit::REFUSED)));
    }
    let mut table = stranger(Style::Verb, None, true);
    table.brain.login.account = None;
    let effects = table.goodbye(ErrorCode::LoginRequired);
    assert!(format!("{effects:?}").contains("--user NAME"), "{effects:?}");
}

#[test]
fn ctrl_c_at_the_question_ends_the_client() {
    for style in [Style::Prompt, Style::Verb] {
        let mut table = stranger(style, None, true);
        table.goodbye(ErrorCode::LoginRequired);
        table.brain.handle_interrupt(2);
        assert_eq!(table.left_with(), Some(130));
    }
}

#[test]
fn a_prompt_that_was_replaced_does_not_fight_for_its_name_and_one_that_was_lost_has_its_password() {
    let mut table = stranger(Style::Prompt, Some("secret"), true);
    table.hello();
    table.say(Event::Welcome { name: name("alice") });
    table.effects();
    table.brain.handle_lost("it broke", 1000, 500);
    table.brain.handle_timeout(1500, 0);
    table.brain.handle_connected(1500);
    assert_eq!(table.hello().1, Some("secret".to_owned()));
    // Somebody else's guesses have blocked the name: that passes.
    let effects = table.goodbye(ErrorCode::Blocked);
    assert!(effects.contains(&Effect::Lost("so it is".into())), "{effects:?}");
    table.brain.handle_lost("so it is", 1600, 500);
    table.effects();
    table.brain.handle_connected(2500);
    table.say(Event::Welcome { name: name("alice") });
    table.effects();
    let effects = table.goodbye(ErrorCode::Replaced);
    assert_eq!(effects.last(), Some(&Effect::Leave(exit::REFUSED)));
}

#[test]
fn a_server_that_has_gone_while_the_password_was_typed_cannot_be_connected_to() {
    let mut table = stranger(Style::Prompt, None, true);
    table.goodbye(ErrorCode::LoginRequired);
    table.brain.handle_password(Some(Secret::from("x")));
    table.brain.handle_unreachable("nobody is there", 9, 9);
    assert_eq!(table.left_with(), Some(exit::CANNOT_CONNECT));
    let mut table = stranger(Style::Verb, None, true);
    table.brain.handle_unsafe("not encrypted");
    assert_eq!(table.left_with(), Some(exit::REFUSED));
}

#[test]
fn where_all_can_read_it_a_password_waits_until_the_server_wants_it() {
    let exposed = || {
        let mut table = stranger(Style::Verb, None, false);
        let login = Login {
            account: Some(name("alice")),
            password: Some(Secret::from("secret")),
            can_ask: false,
            asks_first: true,
        };
        table.brain = Brain::with_login(table.brain.setup, login, 0);
        table
    };
    let mut table = exposed();
    assert_eq!(table.hello(), ("alice".to_owned(), None));
    // A server that takes TLS alone says so, and has not seen it.
    let effects = table.goodbye(ErrorCode::Denied);
    assert!(!effects.contains(&Effect::Connect));
    assert_eq!(effects.last(), Some(&Effect::Leave(exit::REFUSED)));
    let mut table = exposed();
    table.hello();
    let effects = table.goodbye(ErrorCode::LoginRequired);
    assert_eq!(effects, [Effect::Disconnect, Effect::Connect]);
    table.brain.handle_connected(5);
    assert_eq!(table.hello(), ("alice".to_owned(), Some("secret".to_owned())));
    // It has said no to this one: that is the end.
    assert!(!table.goodbye(ErrorCode::LoginFailed).contains(&Effect::Connect));
}
