//! A plugin's file as a whole: pools, rules, and everything that is wrong with them. What the host loads
//! and what `hookline check` reads is the same.

use std::path::Path;

use crate::config::{Config, Overrides, Problem};
use crate::model::delivery::PoolName;

use super::backend::Backend;
use super::keys;
use super::rule::Rules;

/// What a plugin's file says.
#[derive(Debug)]
pub struct Plugin {
    /// Whose file it is.
    pub backend: Backend,
    /// The pools that it defines, in the order of their names.
    pub pools: Vec<PoolName>,
    /// Its rules.
    pub rules: Rules,
}

impl Plugin {
    /// Reads a file. `take_pool` takes the keys of one pool of a backend that has a store; an error among
    /// the problems means that the plugin must not be loaded. `strict` is `strict_config`.
    pub fn read(
        backend: Backend,
        file: &Path,
        overrides: &Overrides,
        strict: bool,
        take_pool: &mut dyn FnMut(&mut Config, &PoolName),
    ) -> (Self, Vec<Problem>) {
        let mut config = backend.read(file, overrides);
        let pools = backend.pools(&config);
        for pool in pools.iter().filter(|_| backend.has_store()) {
            take_pool(&mut config, pool);
        }
        keys::check(backend, &pools, &mut config);
        let rules = Rules::from_config(backend, &pools, &mut config);
        let plugin = Self { backend, pools, rules };
        (plugin, config.finish(strict))
    }
}
