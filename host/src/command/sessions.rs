//! `hookline sessions`: every session of the running host, its client connected or not, in memory or in the store.

use std::path::PathBuf;

use clap::Subcommand;
use hyper::Method;

use super::clients::{columns, expiry, page_path, parse_limit, protocol, show_one, show_page, shown, state};
use super::door::{ask, escape};
use super::{Failure, print_answer};
use crate::admin::clients::{ClientPage, PAGE};
use crate::model::report::SessionReport;

/// Arguments of `hookline sessions`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
    /// Data folder of the running host
    #[arg(long, value_name = "DIR", default_value = "./data", global = true)]
    data: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show every session, by client id, a page at a time
    List {
        /// The most sessions to show
        #[arg(long, value_name = "N", default_value_t = PAGE, value_parser = parse_limit)]
        limit: usize,
        /// Only sessions of clients whose ids come after this one
        #[arg(long, value_name = "ID")]
        after: Option<String>,
        /// JSON instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Show everything about one session: its subscriptions, positions and queue
    Show {
        /// Its client id
        id: String,
        /// JSON instead of text
        #[arg(long)]
        json: bool,
    },
    /// End a session: what it has not read is lost to it, its client has to subscribe again
    Delete {
        /// Its client id
        id: String,
    },
}

/// Runs `hookline sessions`.
pub(super) async fn run(args: Args) -> Result<(), Failure> {
    match args.action {
        Action::List { limit, after, json } => {
            let path = page_path("/sessions", limit, after.as_deref());
            show_page(&ask(&args.data, Method::GET, &path).await?, json, table)
        }
        Action::Show { id, json } => {
            let path = format!("/sessions/{}", escape(&id));
            show_one(&ask(&args.data, Method::GET, &path).await?, json)
        }
        Action::Delete { id } => {
            let path = format!("/sessions/{}/delete", escape(&id));
            let answer = ask(&args.data, Method::POST, &path).await?;
            print_answer(&answer)
        }
    }
}

const HEAD: [&str; 11] = [
    "CLIENT ID",
    "STATE",
    "KEPT",
    "MQTT",
    "EXPIRY",
    "WILL",
    "SUBS",
    "INFLIGHT",
    "UNRELEASED",
    "QUEUE",
    "BYTES",
];

/// A line a session, in columns.
fn table(page: &ClientPage) -> String {
    let word = |said: bool| if said { "yes" } else { "no" }.to_owned();
    let row = |report: &SessionReport| {
        [
            shown(&report.client_id),
            state(report),
            word(report.kept),
            protocol(report.protocol).to_owned(),
            expiry(report.session_expiry_s),
            word(report.will),
            report.subscriptions.to_string(),
            report.inflight.to_string(),
            report.unreleased.to_string(),
            report.queued.to_string(),
            report.queued_bytes.to_string(),
        ]
    };
    columns(HEAD, page.clients.iter().map(row))
}
