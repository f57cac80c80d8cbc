//! How a session goes about things: at a prompt, in a pipe, as a verb; what it shows and how.

use super::{
    arguments::Plan,
    brain::{Setup, Style},
    core::order::Order,
    prompt,
    screen::Screen,
};
use crate::sys::terminal::{self, Stream as Standard};

/// Whether the server is watched on a terminal, by somebody who wants no objects.
pub fn takes_whole_terminal(plan: &Plan) -> bool {
    let is_terminal = terminal::is_terminal(Standard::Stdout);
    plan.watch.is_some() && !plan.json && is_terminal && prompt::can_edit()
}

/// How orders come and answers go.
pub fn style_of(plan: &Plan) -> Style {
    if plan.watch.is_some() {
        return Style::Watch;
    }
    let terminal = [Standard::Stdin, Standard::Stdout].into_iter().all(terminal::is_terminal);
    match plan.orders {
        Some(_) => Style::Verb,
        None if terminal && !plan.json && prompt::can_edit() => Style::Prompt,
        None => Style::Piped,
    }
}

/// How what is shown looks.
pub fn screen_of(plan: &Plan, style: Style) -> Screen {
    Screen {
        json: plan.json || style == Style::Watch && !takes_whole_terminal(plan),
        prompt: style == Style::Prompt,
        quiet: plan.quiet,
        verbose: plan.verbose,
        time: None,
        colour_out: terminal::wants_colour(Standard::Stdout),
        colour_err: terminal::wants_colour(Standard::Stderr),
    }
}

/// Whether what commands print to this stream is made harmless: a terminal obeys it, and who reads
/// it from elsewhere gets every byte.
pub fn tames(plan: &Plan, stream: Standard) -> bool {
    !plan.raw && terminal::is_terminal(stream)
}

/// Whether files may come from other users, or go to them.
pub fn passes_files(plan: &Plan, style: Style) -> bool {
    let passes = |order: &Order| matches!(order, Order::Send { .. } | Order::Receive { .. });
    match style {
        Style::Prompt | Style::Piped => true,
        Style::Verb => plan.orders.iter().flatten().any(passes),
        Style::Watch => false,
    }
}

/// What the brain has to know.
pub fn setup_of(plan: &Plan, style: Style, screen: Screen) -> Setup {
    Setup {
        style,
        user: plan.user,
        own_failure: plan.own_failure(),
        progress_ms: match style {
            _ if plan.json => Some(1000),
            Style::Prompt => Some(3000),
            Style::Piped | Style::Verb | Style::Watch => None,
        },
        tells_every_file: plan.json,
        shows_output: plan.json || screen.prompt,
        shows_messages: style != Style::Watch && (!plan.quiet || plan.json || screen.prompt),
        can_ask: screen.prompt || plan.json && style == Style::Piped,
        watch: plan.watch,
    }
}
