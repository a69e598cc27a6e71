//! Every metric name, once; and the set-up of logs. Client ids and topics are never labels.

/// Seconds a rule's action took: `point`, `action`, `outcome`.
pub const HOOK_RUN_SECONDS: &str = "hook_run_seconds";
/// Times a rule matched: `rule`.
pub const RULE_MATCHED: &str = "rule_matched_total";
/// Seconds a call of a store took: `pool`, `verb`, `outcome`.
pub const STORE_CALL_SECONDS: &str = "store_call_seconds";
/// Writes of one commit: `pool`.
pub const STORE_BATCH_WRITES: &str = "store_batch_writes";
/// Writes by what became of them: `pool`, `write`, `outcome` = stored | refused | cancelled | retried.
pub const STORE_WRITES: &str = "store_writes_total";
/// Writes and reads that wait for a pool: `pool`.
pub const POOL_WAITING: &str = "pool_waiting";
/// Bytes that wait for a pool: `pool`.
pub const POOL_WAITING_BYTES: &str = "pool_waiting_bytes";
/// 1 where the database answers, 0 where it does not: `pool`.
pub const POOL_UP: &str = "pool_up";
/// Open sockets.
pub const CONNECTIONS: &str = "connections";
/// Sessions, connected or not.
pub const SESSIONS: &str = "sessions";
/// Subscriptions.
pub const SUBSCRIPTIONS: &str = "subscriptions";
/// Retained messages that the broker itself keeps.
pub const RETAINED: &str = "retained_messages";
/// CONNECTs refused and connections closed by us: `reason`.
pub const DISCONNECTS: &str = "disconnects_total";
/// PUBLISH received: `qos`. For QoS 1 and 2: received = acked + refused + open.
pub const MESSAGES_RECEIVED: &str = "messages_received_total";
/// Positive PUBACK and PUBREC: `how` = stored | unstored (no rule stores the message).
pub const MESSAGES_ACKED: &str = "messages_acked_total";
/// PUBLISH refused: `reason`.
pub const MESSAGES_REFUSED: &str = "messages_refused_total";
/// PUBLISH whose gate is open.
pub const MESSAGES_OPEN: &str = "messages_open";
/// PUBLISH sent: `qos`.
pub const MESSAGES_SENT: &str = "messages_sent_total";
/// Deliveries dropped: `reason` = queue_full | expired | offline_qos0 | too_large.
pub const MESSAGES_DROPPED: &str = "messages_dropped_total";
/// Live copies left to the store because the subscriber was slow or away (spec C11).
pub const MESSAGES_DEFERRED: &str = "messages_deferred_total";
/// Bytes read from and written to clients: `direction` = in | out.
pub const BYTES: &str = "bytes_total";
