//! The functions that a rule can name, at which moments they run, and which backends have them
//! (spec C15). What each does is written once, in the verbs of the store.

use strum::IntoEnumIterator;

use crate::config::{alternatives, nearest};
use crate::model::delivery::Delivery;
use crate::model::event::HookPoint;

use super::backend::Backend;

/// A built-in function. Its first name is ours; others are what older documents call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, strum::Display, strum::EnumIter, strum::EnumString)]
pub enum Builtin {
    /// Record that a client is online.
    #[strum(to_string = "on_client_connected")]
    ClientConnected,
    /// Record that it is not any more.
    #[strum(to_string = "on_client_disconnected")]
    ClientDisconnected,
    /// Subscribe to what the operator has written down for this client.
    #[strum(to_string = "on_subscribe_lookup", serialize = "on_subscription_lookup")]
    SubscribeLookup,
    /// Send what the client has not read yet.
    #[strum(to_string = "on_message_fetch")]
    MessageFetch,
    /// Send what nobody has acknowledged yet.
    #[strum(to_string = "on_message_fetch_for_queue", serialize = "on_message_fetch_all_msg")]
    MessageFetchForQueue,
    /// Send what this client has not read yet.
    #[strum(to_string = "on_message_fetch_for_pubsub")]
    MessageFetchForPubsub,
    /// Send the newest message only.
    #[strum(to_string = "on_message_fetch_for_keep_latest")]
    MessageFetchForKeepLatest,
    /// Send the retained messages.
    #[strum(to_string = "on_retain_lookup")]
    RetainLookup,
    /// Store a message of QoS 1 or 2.
    #[strum(to_string = "on_message_publish")]
    MessagePublish,
    /// Store a message of any QoS.
    #[strum(to_string = "on_message_store")]
    MessageStore,
    /// Store it in place of its topic's former one.
    #[strum(to_string = "on_message_store_keep_latest")]
    MessageStoreKeepLatest,
    /// Store a retained message.
    #[strum(to_string = "on_message_retain")]
    MessageRetain,
    /// Forget a retained message when an empty one comes.
    #[strum(to_string = "on_retain_delete")]
    RetainDelete,
    /// Move the reader's position.
    #[strum(to_string = "on_message_acked")]
    MessageAcked,
    /// Delete the message.
    #[strum(to_string = "on_message_acked_for_queue", serialize = "on_message_acked_del_msg")]
    MessageAckedForQueue,
    /// Move the reader's position.
    #[strum(to_string = "on_message_acked_for_pubsub")]
    MessageAckedForPubsub,
    /// Delete the newest message.
    #[strum(to_string = "on_message_acked_for_keep_latest")]
    MessageAckedForKeepLatest,
    /// Forget the reader's position.
    #[strum(to_string = "on_acked_delete")]
    AckedDelete,
    /// Nothing: named by a tutorial, documented nowhere.
    #[strum(to_string = "on_message_delivered")]
    MessageDelivered,
}

impl Builtin {
    /// Finds a function for a rule; an error names the right function or the right moment.
    pub fn parse(name: &str, backend: Backend, point: HookPoint) -> Result<Self, String> {
        let Ok(builtin) = name.parse::<Self>() else {
            return Err(unknown(name, backend, point));
        };
        if !builtin.runs_on(backend) {
            let others = Self::valid(backend, builtin.point());
            let others = nearest(name, others.iter().map(String::as_str));
            return Err(format!(
                "{} has no function {name}{}",
                backend.name(),
                suggestion(&others)
            ));
        }
        match builtin.point() {
            right if right == point => Ok(builtin),
            right => Err(format!("{name} cannot run at {point} (try {right})")),
        }
    }

    /// The moment at which it runs.
    pub const fn point(self) -> HookPoint {
        match self {
            Self::ClientConnected | Self::SubscribeLookup => HookPoint::ClientConnected,
            Self::ClientDisconnected => HookPoint::ClientDisconnected,
            Self::MessageFetch
            | Self::MessageFetchForQueue
            | Self::MessageFetchForPubsub
            | Self::MessageFetchForKeepLatest
            | Self::RetainLookup => HookPoint::SessionSubscribed,
            Self::AckedDelete => HookPoint::SessionUnsubscribed,
            Self::MessagePublish
            | Self::MessageStore
            | Self::MessageStoreKeepLatest
            | Self::MessageRetain
            | Self::RetainDelete => HookPoint::MessagePublish,
            Self::MessageDelivered => HookPoint::MessageDelivered,
            Self::MessageAcked
            | Self::MessageAckedForQueue
            | Self::MessageAckedForPubsub
            | Self::MessageAckedForKeepLatest => HookPoint::MessageAcked,
        }
    }

    /// Whether a backend has it. Redis has no plain fetch and acked: there the rule must say which of
    /// the two ways of delivery it means.
    pub const fn runs_on(self, backend: Backend) -> bool {
        match self {
            Self::MessageFetch | Self::MessageAcked => !matches!(backend, Backend::Redis),
            Self::MessageStoreKeepLatest | Self::MessageFetchForKeepLatest | Self::MessageAckedForKeepLatest => {
                matches!(backend, Backend::Redis)
            }
            Self::ClientConnected
            | Self::ClientDisconnected
            | Self::SubscribeLookup
            | Self::MessageFetchForQueue
            | Self::MessageFetchForPubsub
            | Self::RetainLookup
            | Self::MessagePublish
            | Self::MessageStore
            | Self::MessageRetain
            | Self::RetainDelete
            | Self::MessageAckedForQueue
            | Self::MessageAckedForPubsub
            | Self::AckedDelete
            | Self::MessageDelivered => true,
        }
    }

    /// How the backlog is kept that it fetches.
    pub const fn fetches(self) -> Option<Delivery> {
        match self {
            Self::MessageFetch | Self::MessageFetchForPubsub => Some(Delivery::Pubsub),
            Self::MessageFetchForQueue => Some(Delivery::Queue),
            _ => None,
        }
    }

    /// How the backlog is kept that it acknowledges.
    pub const fn acknowledges(self) -> Option<Delivery> {
        match self {
            Self::MessageAcked | Self::MessageAckedForPubsub => Some(Delivery::Pubsub),
            Self::MessageAckedForQueue => Some(Delivery::Queue),
            _ => None,
        }
    }

    /// The names that a backend has at a moment.
    fn valid(backend: Backend, point: HookPoint) -> Vec<String> {
        Self::iter()
            .filter(|builtin| builtin.runs_on(backend) && builtin.point() == point)
            .map(|builtin| builtin.to_string())
            .collect()
    }
}

/// Names of the same moment come first: whoever misspells a function has mostly chosen the right moment.
fn unknown(name: &str, backend: Backend, point: HookPoint) -> String {
    let here = Builtin::valid(backend, point);
    let anywhere: Vec<String> = HookPoint::iter()
        .flat_map(|point| Builtin::valid(backend, point))
        .collect();
    let mut near = nearest(name, here.iter().map(String::as_str));
    if near.is_empty() {
        near = nearest(name, anywhere.iter().map(String::as_str));
    }
    format!("there is no function {name}{}", suggestion(&near))
}

fn suggestion(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        names => format!(" (try {})", alternatives(names)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_is_found_by_its_names_at_its_moment() {
        for builtin in Builtin::iter() {
            let backend = Backend::iter().find(|backend| builtin.runs_on(*backend)).unwrap();
            let found = Builtin::parse(&builtin.to_string(), backend, builtin.point());
            assert_eq!(found, Ok(builtin));
        }
        for (alias, builtin) in [
            ("on_subscription_lookup", Builtin::SubscribeLookup),
            ("on_message_fetch_all_msg", Builtin::MessageFetchForQueue),
            ("on_message_acked_del_msg", Builtin::MessageAckedForQueue),
        ] {
            assert_eq!(alias.parse(), Ok(builtin));
        }
    }

    #[test]
    fn a_mistake_is_told_with_the_right_name_or_moment() {
        use HookPoint::{ClientConnected, MessageAcked, MessagePublish, SessionSubscribed};
        for (name, backend, point, expected) in [
            (
                "on_message_publish",
                Backend::Mysql,
                ClientConnected,
                "on_message_publish cannot run at client.connected (try message.publish)",
            ),
            (
                "on_message_publsh",
                Backend::Mysql,
                MessagePublish,
                "there is no function on_message_publsh \
                 (try on_message_publish, on_message_store or on_message_retain)",
            ),
            (
                "on_message_fetch",
                Backend::Redis,
                SessionSubscribed,
                "redis has no function on_message_fetch (try on_message_fetch_for_queue, \
                 on_message_fetch_for_pubsub or on_message_fetch_for_keep_latest)",
            ),
            (
                "on_message_acked_for_keep_latest",
                Backend::Sqlite,
                MessageAcked,
                "sqlite has no function on_message_acked_for_keep_latest (try on_message_acked_for_queue, \
                 on_message_acked_for_pubsub or on_message_acked)",
            ),
        ] {
            assert_eq!(Builtin::parse(name, backend, point), Err(expected.to_owned()));
        }
    }
}
