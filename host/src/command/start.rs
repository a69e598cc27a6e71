//! `hookline start`: runs a host until it is told to stop.

use std::path::PathBuf;

use crate::app::{self, Options};
use crate::config::Overrides;

use super::Failure;

/// Where a host finds its configuration and keeps its data.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    /// The folder with hookline.conf and plugins/
    #[arg(long, value_name = "DIR", default_value = "./etc")]
    etc: PathBuf,
    /// The folder for everything that the host keeps
    #[arg(long, value_name = "DIR", default_value = "./data")]
    data: PathBuf,
    /// A key of the configuration and its value; beats the environment (HOOKLINE_…) and the files
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
}

impl Default for Args {
    /// What `hookline` alone means.
    fn default() -> Self {
        Self {
            etc: "./etc".into(),
            data: "./data".into(),
            sets: Vec::new(),
        }
    }
}

impl Args {
    pub(super) fn options(self) -> Result<Options, Failure> {
        let mut overrides = Overrides::from_environment();
        for set in &self.sets {
            overrides.set(set).map_err(Failure::new)?;
        }
        Ok(Options {
            etc: self.etc,
            data: self.data,
            overrides,
        })
    }
}

/// Runs until SIGTERM or Ctrl-C.
pub(super) async fn run(args: Args) -> Result<(), Failure> {
    app::run(args.options()?)
        .await
        .map_err(|error| Failure::new(format!("{error:#}")))
}
