//! The password: sent with the hello, asked of the user where the server wants one.
//!
//! ```text
//!   hello ──login-required──▶ ask ──typed──▶ connect, hello with it ──login-failed──▶ ask again
//!      └──── nobody can be asked, or the name is blocked: the reason, and the end ────┘
//! ```

use super::{Brain, Effect, ErrorCode, Name, Online, exit};
use crate::wire::{Secret, control::RefusalBody};

/// What is known of the user's identity.
#[derive(Debug, Default)]
pub struct Login {
    /// Whose password it is; `None` where nobody knows.
    pub account: Option<Name>,
    /// The password, as far as it is known.
    pub password: Option<Secret<'static>>,
    /// Whether there is a terminal to ask at.
    pub can_ask: bool,
    /// Everybody on the way can read what is said: the password waits until the server has said
    /// that it wants one all the same. One that does without TLS nowhere never gets to see it.
    pub asks_first: bool,
}

impl Login {
    /// What the hello carries.
    pub(super) fn sent_password(&self) -> Option<&Secret<'static>> {
        self.password.as_ref().filter(|_| !self.asks_first)
    }
}

/// How far asking has come.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Asking {
    /// Nobody was asked: the password is given, or none is needed.
    #[default]
    Never,
    /// The answer is awaited.
    Now,
    /// The password was typed.
    Done,
}

impl Brain {
    /// A brain on a fresh connection that knows who its user is.
    pub fn with_login(mut setup: super::Setup, login: Login, now_ms: u64) -> Brain {
        if let (Some(account), Some(_)) = (login.account, &login.password) {
            setup.user = account;
        }
        let link = super::Link::new(setup.user, login.sent_password(), 0, now_ms);
        Brain { online: Online::Here(link), login, ..Brain::new(setup, now_ms) }
    }

    /// The user has typed a password, or does not want to.
    pub fn handle_password(&mut self, typed: Option<Secret<'static>>) {
        if self.asking != Asking::Now {
            return;
        }
        match typed {
            Some(password) if password.reveal().is_empty() => self.ask(None),
            Some(password) => {
                self.asking = Asking::Done;
                self.login.password = Some(password);
                self.effects.push_back(Effect::Connect);
            }
            None => {
                self.refuse(ErrorCode::LoginRequired, "no password was given");
                self.leave(self.code);
            }
        }
    }

    /// Whether the refusal of a hello can be answered by asking for the password: then it is.
    pub(super) fn ask_after(&mut self, why: &RefusalBody<'_>) -> bool {
        let is_wanted = why.code == ErrorCode::LoginRequired && self.login.password.is_some();
        if is_wanted && std::mem::take(&mut self.login.asks_first) {
            self.online = Online::waiting(self.link().map_or(0, |link| link.last_number()));
            self.effects.extend([Effect::Disconnect, Effect::Connect]);
            return true;
        }
        let is_wrong = match (why.code, self.asking) {
            (ErrorCode::LoginRequired, Asking::Never) => self.login.password.is_some(),
            (ErrorCode::LoginFailed, Asking::Done) => true,
            _ => return false,
        };
        if is_wrong && self.asking == Asking::Never || self.was_welcome || !self.login.can_ask {
            return false;
        }
        let Some(account) = self.login.account else { return false };
        self.setup.user = account;
        self.login.password = None;
        let why = is_wrong.then(|| crate::wire::escape::escape(&why.text).into_owned());
        self.online = Online::waiting(self.link().map_or(0, |link| link.last_number()));
        self.effects.push_back(Effect::Disconnect);
        self.ask(why);
        true
    }

    fn ask(&mut self, why: Option<String>) {
        self.asking = Asking::Now;
        self.effects.push_back(Effect::Ask { user: self.setup.user, why });
    }

    /// The reason why a login was refused, with what the user can do about it.
    pub(super) fn refuse_login(&mut self, why: &RefusalBody<'_>) {
        let hint = match (why.code, self.login.account) {
            (ErrorCode::LoginRequired, None) => "; say who you are with --user NAME",
            (ErrorCode::LoginRequired, Some(_)) if !self.was_welcome => {
                "; give it with --password-file FILE or in SIXFOUR_PASSWORD"
            }
            (ErrorCode::NameTaken, _) => "; take another one with --user NAME",
            _ => "",
        };
        self.refuse(why.code, &format!("{}{hint}", why.text));
    }

    /// Whether the hello of the next connection carries a password.
    pub fn has_password(&self) -> bool {
        self.login.password.is_some()
    }

    /// The password may not be sent on this connection: the reason.
    pub fn handle_unsafe(&mut self, why: &str) {
        self.fail(exit::REFUSED);
        self.show(super::Shown::Error { code: "not-encrypted", text: why.to_owned() });
        self.online = Online::Leaving(None);
        self.leave(self.code);
    }

    /// Whether a connection that failed is the first of all, and so is not tried again.
    pub(super) fn is_first(&self) -> bool {
        !self.was_welcome || !self.returns()
    }
}
