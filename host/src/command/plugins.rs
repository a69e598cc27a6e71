//! `hookline plugins`: asks the running host over its Unix socket and prints EMQ X's words.

use std::path::PathBuf;

use clap::Subcommand;
use hyper::Method;

use super::door::ask;
use super::{Failure, print, print_answer};
use crate::admin::{Plugin, Plugins, Verb};

/// Arguments of `hookline plugins`.
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
    /// Show every plugin and whether it is active
    List,
    /// Start a plugin, now and after every restart
    Load(Name),
    /// Stop a plugin, now and after every restart
    Unload(Name),
    /// Read a plugin's configuration again; a file with errors changes nothing
    Reload(Name),
}

#[derive(Debug, clap::Args)]
struct Name {
    /// Name of the plugin, e.g. emqx_backend_sqlite
    #[arg(value_parser = parse_name)]
    name: String,
}

/// A name goes into a path, so it is checked before.
fn parse_name(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    match !text.is_empty() && text.chars().all(fits) {
        true => Ok(text.to_owned()),
        false => Err("the name of a plugin is made of letters, digits, _ and -, like emqx_backend_sqlite".to_owned()),
    }
}

/// Runs `hookline plugins`.
pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let (method, path) = match &args.action {
        Action::List => (Method::GET, "/plugins".to_owned()),
        Action::Load(target) => change(target, Verb::Load),
        Action::Unload(target) => change(target, Verb::Unload),
        Action::Reload(target) => change(target, Verb::Reload),
    };
    let answer = ask(&args.data, method, &path).await?;
    match args.action {
        Action::List => print(&list(&answer)?),
        _ => print_answer(&answer),
    }
}

fn change(target: &Name, verb: Verb) -> (Method, String) {
    (Method::POST, format!("/plugins/{}/{verb}", target.name))
}

fn list(answer: &[u8]) -> Result<String, Failure> {
    let answer: Plugins = serde_json::from_slice(answer)
        .map_err(|error| Failure::new(format!("the host's list of plugins cannot be read: {error}")))?;
    Ok(answer
        .plugins
        .iter()
        .map(|plugin| line(plugin, &answer.version))
        .collect())
}

/// As EMQ X 3 writes it.
fn line(plugin: &Plugin, version: &str) -> String {
    let Plugin {
        name,
        description,
        active,
        ..
    } = plugin;
    format!("Plugin({name}, version={version}, description={description}, active={active})\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    use clap::Parser;

    #[test]
    fn a_plugin_is_listed_as_emqx_3_lists_it() {
        let answer = br#"{"version":"0.1.0","plugins":[
            {"name":"emqx_backend_redis","description":"Redis Backend","active":false,"rules":0},
            {"name":"emqx_backend_sqlite","description":"SQLite Backend","active":true,"rules":9}]}"#;
        assert_eq!(
            list(answer).expect("a list"),
            "Plugin(emqx_backend_redis, version=0.1.0, description=Redis Backend, active=false)\n\
             Plugin(emqx_backend_sqlite, version=0.1.0, description=SQLite Backend, active=true)\n"
        );
    }

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn a_name_that_would_leave_its_path_is_refused() {
        for name in ["", "../health", "a/b", "a b", "ä", "a%2fb"] {
            Line::try_parse_from(["plugins", "load", name]).expect_err(name);
        }
        let line = Line::try_parse_from(["plugins", "load", "emqx_backend_sqlite", "--data", "/tmp/x"]).expect("fine");
        assert_eq!(line.args.data, Path::new("/tmp/x"));
    }
}
