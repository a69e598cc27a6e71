//! From a rule's line to a rule (spec A4). Every mistake in a line is told, not only the first; what can
//! do no harm is warned about.

use serde_json::Value;

use crate::config::{Config, Text, words};
use crate::model::delivery::PoolName;

use super::action::Action;
use super::backend::Backend;
use super::builtin::Builtin;
use super::json;
use super::rule::Rule;
use super::rule_fields::{Fields, Moment, Notes};

/// Reads all rules of a file, in no order.
pub(super) fn read(backend: Backend, pools: &[PoolName], config: &mut Config) -> Vec<Rule> {
    let section = backend.section();
    for key in config.keys(&format!("{section}.rule")) {
        config.text(&key);
        config.error(
            &key,
            format!(
                "this is the rule format of EMQ 2.0; write {section}.hook.<object>.<event>.<number> = \
                 {{\"topic\": \"#\", \"action\": {{\"function\": \"on_…\"}}, \"pool\": \"pool1\"}}"
            ),
        );
    }
    let mut rules = Vec::new();
    for key in config.keys(&format!("{section}.hook")) {
        let Some(text) = config.text(&key) else { continue };
        let mut notes = Notes::default();
        let rule = Line {
            backend,
            pools,
            key: &key,
            text: &text,
        }
        .rule(&mut notes);
        // A line with a mistake is no rule, however much of it could be read.
        rules.extend(rule.filter(|_| notes.errors.is_empty()));
        notes.errors.into_iter().for_each(|error| config.error(&key, error));
        notes
            .warnings
            .into_iter()
            .for_each(|warning| config.warn(&key, warning));
    }
    rules
}

struct Line<'a> {
    backend: Backend,
    pools: &'a [PoolName],
    key: &'a str,
    text: &'a Text,
}

impl Line<'_> {
    /// `None` where the line is no rule, or one that this version never runs.
    fn rule(&self, notes: &mut Notes) -> Option<Rule> {
        let section = self.backend.section();
        let tail: Vec<&str> = words(&self.key[section.len() + ".hook.".len()..]).collect();
        let [object, event, _number] = tail[..] else {
            notes.error(format!("a rule's key is {section}.hook.<object>.<event>.<number>"));
            return None;
        };
        let name = format!("{object}.{event}");
        let moment = Moment::parse(&name, notes);
        let json = notes.ok(json::parse(&self.text.value, self.text.column))?;
        notes.warnings.extend(json.forgiven);
        let Value::Object(map) = json.value else {
            notes.error("a rule is a JSON object: {\"topic\": \"#\", \"action\": {…}, \"pool\": \"pool1\"}");
            return None;
        };
        let mut fields = Fields::new(map, notes);
        let moment = moment?;
        let filter = fields.filter(&moment);
        let action = fields.action(self.backend, &moment);
        let pool = fields.pool(self.backend, self.pools);
        let options = action
            .as_ref()
            .map(|action| fields.options(self.backend, &moment, action));
        fields.finish();
        let action = action?;
        if let [word, ..] = action.suspects(moment.point)[..] {
            notes.warn(format!(
                "{word} is stored as this very word; write ${{{word}}} for its value"
            ));
        }
        self.runs(&moment, &action, notes).then_some(())?;
        Some(Rule {
            name: self.key.to_owned(),
            point: moment.point,
            filter,
            action,
            pool: pool?,
            options: options?,
            origin: self.text.origin.clone(),
        })
    }

    fn runs(&self, moment: &Moment<'_>, action: &Action, notes: &mut Notes) -> bool {
        if *action == Action::Builtin(Builtin::MessageDelivered) {
            notes.warn("on_message_delivered does nothing; delete the rule");
        }
        if !moment.is_later {
            return true;
        }
        let lookup = *action == Action::Builtin(Builtin::SubscribeLookup);
        if lookup && moment.name == "session.created" {
            notes.warn("on_subscribe_lookup runs at client.connected; write that instead of session.created");
            return true;
        }
        notes.warn(format!(
            "{} does not come in this version, so the rule never runs (try {})",
            moment.name, moment.point
        ));
        false
    }
}
