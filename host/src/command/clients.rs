//! `hookline clients`: who is connected to the running host, how one of them is, and that it goes.

use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use clap::Subcommand;
use hyper::Method;

use super::door::{ask, escape};
use super::{Failure, print, print_answer, say};
use crate::admin::clients::{ClientPage, PAGE, PAGE_MAX};
use crate::model::report::{SessionReport, SubscriptionReport};
use crate::model::utc::utc;

/// Arguments of `hookline clients`.
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
    /// Show who is connected, by client id, a page at a time
    List {
        /// The most clients to show
        #[arg(long, value_name = "N", default_value_t = PAGE, value_parser = parse_limit)]
        limit: usize,
        /// Only clients whose ids come after this one
        #[arg(long, value_name = "ID")]
        after: Option<String>,
        /// JSON instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Show everything about one client: its session, subscriptions and positions
    Show {
        /// Its client id
        id: String,
        /// JSON instead of text
        #[arg(long)]
        json: bool,
    },
    /// Close a client's connection; its session stays, if it is to outlive the connection
    Kick {
        /// Its client id
        id: String,
    },
}

pub(super) fn parse_limit(text: &str) -> Result<usize, String> {
    let limit = text.parse().ok().filter(|limit| (1..=PAGE_MAX).contains(limit));
    limit.ok_or_else(|| format!("a whole number from 1 to {PAGE_MAX}"))
}

/// Runs `hookline clients`.
pub(super) async fn run(args: Args) -> Result<(), Failure> {
    match args.action {
        Action::List { limit, after, json } => {
            let path = page_path("/clients", limit, after.as_deref());
            let answer = ask(&args.data, Method::GET, &path).await?;
            show_page(&answer, json, table)
        }
        Action::Show { id, json } => {
            let answer = ask(&args.data, Method::GET, &format!("/clients/{}", escape(&id))).await?;
            show_one(&answer, json)
        }
        Action::Kick { id } => {
            let answer = ask(&args.data, Method::POST, &format!("/clients/{}/kick", escape(&id))).await?;
            print_answer(&answer)
        }
    }
}

/// Where a page of a list is asked for: the first, or the one after a client id.
pub(super) fn page_path(list: &str, limit: usize, after: Option<&str>) -> String {
    let after = after.map(|id| format!("&after={}", escape(id)));
    format!("{list}?limit={limit}{}", after.unwrap_or_default())
}

/// A page as it came, or as a table.
pub(super) fn show_page(answer: &[u8], json: bool, table: impl Fn(&ClientPage) -> String) -> Result<(), Failure> {
    if json {
        return print_answer(answer);
    }
    let page: ClientPage = read(answer)?;
    print(&table(&page))?;
    for id in &page.late {
        say(format_args!("{} did not answer in time", shown(id)));
    }
    if let Some(last) = &page.more_after {
        say(format_args!("there are more: --after '{}'", shown(last)));
    }
    Ok(())
}

/// One report as it came, or a line a thing.
pub(super) fn show_one(answer: &[u8], json: bool) -> Result<(), Failure> {
    match json {
        true => print_answer(answer),
        false => print(&in_full(&read(answer)?)),
    }
}

fn read<'a, T: serde::Deserialize<'a>>(answer: &'a [u8]) -> Result<T, Failure> {
    serde_json::from_slice(answer).map_err(|error| Failure::new(format!("the host's answer cannot be read: {error}")))
}

/// Text that may come from a client: a terminal must not obey it.
pub(super) fn shown(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            if c.is_control() {
                c.escape_default().collect()
            } else {
                vec![c]
            }
        })
        .collect()
}

pub(super) fn protocol(level: u8) -> &'static str {
    match level {
        3 => "3.1",
        4 => "3.1.1",
        _ => "5.0",
    }
}

pub(super) fn expiry(seconds: Option<u32>) -> String {
    seconds.map_or("never".to_owned(), |seconds| seconds.to_string())
}

fn since(report: &SessionReport) -> String {
    utc(UNIX_EPOCH + Duration::from_secs(report.connected_at))
}

const HEAD: [&str; 12] = [
    "CLIENT ID",
    "USER",
    "ADDRESS",
    "MQTT",
    "CONNECTED (UTC)",
    "KEEP ALIVE",
    "EXPIRY",
    "SUBS",
    "INFLIGHT",
    "QUEUE",
    "BYTES",
    "MAILBOX",
];

/// A line a client, in columns.
fn table(page: &ClientPage) -> String {
    let row = |report: &SessionReport| {
        [
            shown(&report.client_id),
            shown(report.username.as_deref().unwrap_or("-")),
            report.address.clone(),
            protocol(report.protocol).to_owned(),
            since(report),
            report.keep_alive_s.to_string(),
            expiry(report.session_expiry_s),
            report.subscriptions.to_string(),
            report.inflight.to_string(),
            report.queued.to_string(),
            report.queued_bytes.to_string(),
            report.mailbox.to_string(),
        ]
    };
    columns(HEAD, page.clients.iter().map(row))
}

/// Lines of cells, every column as wide as its widest cell.
pub(super) fn columns<const N: usize>(head: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let rows: Vec<_> = std::iter::once(head.map(str::to_owned)).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut lines = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        lines.push_str(line.trim_end());
        lines.push('\n');
    }
    lines
}

/// Where a session and its client are.
pub(super) fn state(report: &SessionReport) -> String {
    let left = report.left_at.map(|at| utc(UNIX_EPOCH + Duration::from_secs(at)));
    match (report.connected, report.at_rest, left) {
        (true, ..) => "connected".to_owned(),
        (false, false, _) => "away".to_owned(),
        (false, true, None) => "at rest".to_owned(),
        (false, true, Some(left)) => format!("at rest since {left}"),
    }
}

/// Everything about one client, a line a thing.
fn in_full(report: &SessionReport) -> String {
    let state = state(report);
    let kept = if report.kept {
        "yes, it outlives the broker"
    } else {
        "no"
    };
    let mut lines = vec![
        format!("client id     {}", shown(&report.client_id)),
        format!("user          {}", shown(report.username.as_deref().unwrap_or("-"))),
        format!(
            "state         {state}, from {}, since {} UTC",
            report.address,
            since(report)
        ),
        format!("mqtt          {}", protocol(report.protocol)),
        format!("clean start   {}", report.clean_start),
        format!("keep alive    {} s", report.keep_alive_s),
        format!("expiry        {} s", expiry(report.session_expiry_s)),
        format!("kept          {kept}"),
        format!("will          {}", if report.will { "yes" } else { "none" }),
        format!("inflight      {}", report.inflight),
        format!("queue         {}, {} bytes", report.queued, report.queued_bytes),
        format!("mailbox       {}", report.mailbox),
        format!("unanswered    {}", report.unanswered),
        format!("unreleased    {}", report.unreleased),
        format!("subscriptions {}", report.subscriptions),
    ];
    lines.extend(report.filters.iter().map(subscription));
    lines.push(format!("readers       {}", report.readers.len()));
    for reader in &report.readers {
        let position = reader.position.as_deref().unwrap_or("not known yet");
        let filter = shown(&reader.filter);
        lines.push(format!(
            "  {} {filter} {} position {position}",
            reader.pool, reader.delivery
        ));
    }
    if report.left_out > 0 {
        lines.push(format!("and {} more subscriptions and readers", report.left_out));
    }
    lines.join("\n") + "\n"
}

/// A subscription with those of its options that say something.
fn subscription(sub: &SubscriptionReport) -> String {
    let mut line = format!("  {} qos {}", shown(&sub.filter), sub.qos);
    for (said, word) in [
        (sub.no_local, " no-local"),
        (sub.retain_as_published, " retain-as-published"),
        (sub.catching_up, " catching-up"),
    ] {
        line.push_str(if said { word } else { "" });
    }
    if sub.retain_handling > 0 {
        line.push_str(&format!(" retain-handling {}", sub.retain_handling));
    }
    if let Some(identifier) = sub.identifier {
        line.push_str(&format!(" identifier {identifier}"));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_need_not_obey_a_client_id() {
        assert_eq!(shown("a\u{1b}[31mb\n"), "a\\u{1b}[31mb\\n");
    }

    #[test]
    fn columns_are_as_wide_as_what_is_in_them() {
        let report = |id: &str| SessionReport {
            client_id: id.to_owned(),
            address: "127.0.0.1:5000".to_owned(),
            protocol: 4,
            session_expiry_s: None,
            ..SessionReport::default()
        };
        let page = ClientPage {
            clients: vec![report("a"), report("a-rather-long-one")],
            ..ClientPage::default()
        };
        let text = table(&page);
        let lines: Vec<&str> = text.lines().collect();
        let at = lines[0].find("USER").expect("a column");
        assert!(lines.iter().skip(1).all(|line| line[at..].starts_with("- ")), "{text}");
        assert!(
            lines[1].contains("  3.1.1  1970-01-01 00:00:00  0           never"),
            "{text}"
        );
    }
}
