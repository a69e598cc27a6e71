//! The gates of a session: one for every PUBLISH received, open until every rule that stores the message
//! has committed. What waits for a gate leaves in arrival order among its own kind (spec F3).

use std::collections::VecDeque;

use crate::model::delivery::{Settled, Ticket};
use crate::model::message::Qos;
use crate::model::reason::Reason;

/// The open gates, oldest first, numbered without holes.
#[derive(Debug, Default)]
pub(super) struct Gates {
    /// The ticket of the oldest gate that is kept.
    first: Ticket,
    gates: VecDeque<Gate>,
    /// What PUBACKs and PUBRECs wait for, in arrival order.
    order: [VecDeque<Turn>; 2],
    /// Gates of QoS 0 that are open.
    open_qos0: usize,
}

/// What the next answer of a kind waits for.
#[derive(Debug)]
enum Turn {
    Gate(Ticket),
    /// Nothing but its turn: the client sends again what had its result before.
    Known(Gate),
}

/// One PUBLISH whose commit is under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gate {
    /// The QoS of the message: what its answer is.
    pub(super) qos: Qos,
    /// The packet identifier; 0 for QoS 0.
    pub(super) packet_id: u16,
    /// A hash of topic, properties and payload: a resend is known by it.
    pub(super) fingerprint: u64,
    /// Whether the client on the present connection awaits the answer.
    pub(super) owed: bool,
    /// Stores that have not settled; `None` until the rules were planned.
    waits: Option<u8>,
    /// Whether any rule stores the message.
    pub(super) stored: bool,
    /// Whether its result was counted before: the client asks for it again.
    pub(super) counted: bool,
    /// Whether its answer has left, where it has one.
    answered: bool,
    result: Settled,
}

impl Gate {
    /// A gate for a message that just came in.
    pub(super) fn new(qos: Qos, packet_id: u16, fingerprint: u64) -> Self {
        Self {
            qos,
            packet_id,
            fingerprint,
            owed: true,
            waits: None,
            stored: false,
            counted: false,
            answered: qos == Qos::AtMostOnce,
            result: Settled::Stored,
        }
    }

    fn is_open(&self) -> bool {
        self.waits != Some(0)
    }
}

impl Gates {
    /// Opens a gate. Its ticket is one above the last.
    pub(super) fn open(&mut self, gate: Gate) -> Ticket {
        let ticket = self.next_ticket();
        match gate.qos {
            Qos::AtMostOnce => self.open_qos0 += 1,
            qos => self.order[qos as usize - 1].push_back(Turn::Gate(ticket)),
        }
        self.gates.push_back(gate);
        ticket
    }

    /// The message of this gate was settled like this before, and its client asks again: its answer has its turn
    /// among the others.
    pub(super) fn answer_again(&mut self, gate: Gate, result: Settled) {
        let known = Gate {
            waits: Some(0),
            counted: true,
            result,
            ..gate
        };
        self.order[gate.qos as usize - 1].push_back(Turn::Known(known));
    }

    /// Numbers gates from here on; nothing was opened yet.
    pub(super) fn number_from(&mut self, first: Ticket) {
        self.first = first;
    }

    /// The ticket of the next gate.
    pub(super) fn next_ticket(&self) -> Ticket {
        self.first + self.gates.len() as Ticket
    }

    /// Whether any store has still to settle, whatever the QoS.
    pub(super) fn is_any_open(&self) -> bool {
        self.gates.iter().any(Gate::is_open)
    }

    /// The rules were planned: message `first + i` waits for `waits[i]` stores.
    pub(super) fn planned(&mut self, first: Ticket, waits: impl IntoIterator<Item = u8>) {
        for (ticket, waits) in (first..).zip(waits) {
            if let Some(gate) = self.get_mut(ticket) {
                gate.stored = waits > 0;
                gate.waits = Some(waits);
                let closed_qos0 = waits == 0 && gate.qos == Qos::AtMostOnce;
                self.open_qos0 -= usize::from(closed_qos0);
            }
        }
    }

    /// One store has settled these gates; the worst result counts.
    pub(super) fn settle(&mut self, first: Ticket, results: &[Settled]) {
        for (ticket, result) in (first..).zip(results) {
            if let Some(gate) = self.get_mut(ticket)
                && let Some(waits) = gate.waits.as_mut().filter(|waits| **waits > 0)
            {
                *waits -= 1;
                let closed = *waits == 0;
                if gate.result == Settled::Stored {
                    gate.result = *result;
                }
                let closed_qos0 = closed && gate.qos == Qos::AtMostOnce;
                self.open_qos0 -= usize::from(closed_qos0);
            }
        }
    }

    /// The next answer that may leave, PUBACKs and PUBRECs each in arrival order.
    pub(super) fn next_answer(&mut self) -> Option<(Gate, Settled)> {
        for kind in 0..self.order.len() {
            let next = match self.order[kind].front() {
                Some(Turn::Gate(ticket)) => self.get(*ticket).copied(),
                Some(Turn::Known(gate)) => Some(*gate),
                None => None,
            };
            if let Some(gate) = next.filter(|gate| !gate.is_open()) {
                if let Some(Turn::Gate(ticket)) = self.order[kind].pop_front()
                    && let Some(gate) = self.get_mut(ticket)
                {
                    gate.answered = true;
                }
                return Some((gate, gate.result));
            }
        }
        self.drop_what_is_done();
        None
    }

    /// Whether none of these gates is open.
    pub(super) fn are_closed(&self, first: Ticket, count: usize) -> bool {
        (first..)
            .take(count)
            .all(|ticket| self.get(ticket).is_none_or(|gate| !gate.is_open()))
    }

    /// The client sends this message again, and its gate has not been answered: it is now, at the turn that this
    /// PUBLISH has. False where there is no such gate.
    pub(super) fn join(&mut self, qos: Qos, packet_id: u16, fingerprint: u64) -> bool {
        let Self {
            first, gates, order, ..
        } = self;
        let Some(order) = (qos as usize).checked_sub(1).map(|kind| &mut order[kind]) else {
            return false;
        };
        let gate = |turn: &Turn| match turn {
            Turn::Gate(ticket) => gates[(ticket - *first) as usize],
            Turn::Known(gate) => *gate,
        };
        let is_it = |turn: &Turn| {
            let gate = gate(turn);
            gate.packet_id == packet_id && (gate.fingerprint == fingerprint || qos == Qos::ExactlyOnce)
        };
        let Some(at) = order.iter().position(is_it) else {
            return false;
        };
        let Some(mut turn) = order.remove(at) else { return false };
        match &mut turn {
            Turn::Gate(ticket) => gates[(*ticket - *first) as usize].owed = true,
            Turn::Known(gate) => gate.owed = true,
        }
        order.push_back(turn);
        true
    }

    /// The client has gone: nobody awaits the answers any more, unless it asks again.
    pub(super) fn nobody_waits(&mut self) {
        let known = self.order.iter_mut().flatten().filter_map(|turn| match turn {
            Turn::Gate(_) => None,
            Turn::Known(gate) => Some(gate),
        });
        self.gates.iter_mut().chain(known).for_each(|gate| gate.owed = false);
    }

    /// PUBLISH of QoS 1 and 2 that have no answer yet.
    pub(super) fn unanswered(&self) -> usize {
        self.order.iter().map(VecDeque::len).sum()
    }

    /// PUBLISH of QoS 0 whose commit is under way.
    pub(super) fn open_qos0(&self) -> usize {
        self.open_qos0
    }

    fn drop_what_is_done(&mut self) {
        while self.gates.front().is_some_and(|gate| !gate.is_open() && gate.answered) {
            self.gates.pop_front();
            self.first += 1;
        }
    }

    fn get(&self, ticket: Ticket) -> Option<&Gate> {
        self.gates.get(ticket.checked_sub(self.first)? as usize)
    }

    fn get_mut(&mut self, ticket: Ticket) -> Option<&mut Gate> {
        self.gates.get_mut(ticket.checked_sub(self.first)? as usize)
    }
}

/// The reason that the publisher hears for a gate that ended badly (spec F3).
pub(super) fn refusal(result: Settled) -> Option<Reason> {
    match result {
        Settled::Stored => None,
        Settled::Refused(reason) => Some(reason),
        Settled::Cancelled => Some(Reason::QUOTA_EXCEEDED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Settled::{Cancelled, Refused, Stored};

    fn answers(gates: &mut Gates) -> Vec<(u16, Settled)> {
        std::iter::from_fn(|| gates.next_answer())
            .map(|(gate, result)| (gate.packet_id, result))
            .collect()
    }

    #[test]
    fn answers_keep_their_order_within_a_kind() {
        let mut gates = Gates::default();
        for (qos, id) in [(Qos::AtLeastOnce, 7), (Qos::ExactlyOnce, 8), (Qos::AtLeastOnce, 9)] {
            gates.open(Gate::new(qos, id, 0));
        }
        gates.planned(0, [1, 1, 1]);
        gates.settle(1, &[Stored, Stored]);
        assert_eq!(
            answers(&mut gates),
            [(8, Stored)],
            "the PUBREC does not wait for the PUBACK before it"
        );
        gates.settle(0, &[Stored]);
        assert_eq!(answers(&mut gates), [(7, Stored), (9, Stored)]);
        assert!(gates.gates.is_empty());
    }

    #[test]
    fn a_gate_waits_for_all_its_stores_and_keeps_the_worst_result() {
        let mut gates = Gates::default();
        gates.open(Gate::new(Qos::AtLeastOnce, 1, 0));
        gates.planned(0, [2]);
        gates.settle(0, &[Refused(Reason::QUOTA_EXCEEDED)]);
        assert_eq!(answers(&mut gates), []);
        gates.settle(0, &[Stored]);
        assert_eq!(answers(&mut gates), [(1, Refused(Reason::QUOTA_EXCEEDED))]);
    }

    #[test]
    fn nothing_is_answered_before_the_rules_were_planned() {
        let mut gates = Gates::default();
        gates.open(Gate::new(Qos::AtLeastOnce, 1, 0));
        assert_eq!(answers(&mut gates), []);
        gates.planned(0, [0]);
        assert_eq!(answers(&mut gates), [(1, Stored)]);
    }

    #[test]
    fn qos_0_holds_no_answer_back_and_is_counted() {
        let mut gates = Gates::default();
        gates.open(Gate::new(Qos::AtMostOnce, 0, 0));
        gates.open(Gate::new(Qos::AtLeastOnce, 1, 0));
        gates.planned(0, [1, 0]);
        assert_eq!((gates.open_qos0(), answers(&mut gates)), (1, vec![(1, Stored)]));
        gates.settle(0, &[Cancelled]);
        assert_eq!((gates.open_qos0(), gates.unanswered()), (0, 0));
        assert_eq!(answers(&mut gates), []);
        assert_eq!(
            gates.open(Gate::new(Qos::AtMostOnce, 0, 0)),
            2,
            "tickets are never used again"
        );
    }
}
