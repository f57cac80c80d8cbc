//! Arguments of the verbs that look at the server for a while.

use std::time::Duration;

use clap::Args;

use super::{parse_ping_host, parse_time};
use crate::{
    client::brain::Watch,
    limits::{INFO_INTERVAL_MAX_MS, INFO_INTERVAL_MIN_MS},
    wire::host::PingHost,
};

#[derive(Debug, Args)]
pub(super) struct Top {
    /// Ask for the facts so often, as in 500ms or 5s.
    #[arg(short, long, value_name = "TIME", default_value = "2s", value_parser = parse_time)]
    pub(super) interval: Duration,
    /// End after so many.
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) count: Option<u32>,
}

#[derive(Debug, Args)]
pub(super) struct Ping {
    /// So many round trips by each family.
    #[arg(short, long, value_name = "N", default_value_t = 4, conflicts_with = "host",
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(super) count: u32,
    /// Between two of them, as in 200ms or 1s.
    #[arg(short, long, value_name = "TIME", default_value = "200ms", conflicts_with = "host",
          value_parser = parse_time)]
    pub(super) interval: Duration,
    /// Another host, which the server is to ping: an address of either family, or a name.
    #[arg(value_name = "HOST", value_parser = parse_ping_host)]
    pub(super) host: Option<PingHost>,
}

pub(super) fn watch(top: &Top) -> Result<Watch, String> {
    let (min, max) = (INFO_INTERVAL_MIN_MS, INFO_INTERVAL_MAX_MS);
    let interval_ms = u32::try_from(top.interval.as_millis()).unwrap_or(u32::MAX);
    if !(min..=max).contains(&interval_ms) {
        return Err(format!("--interval is {min}ms to {}s", max / 1000));
    }
    Ok(Watch { interval_ms, count: top.count })
}
