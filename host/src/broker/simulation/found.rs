//! What the simulation has found, each as the shortest scenario that showed it, so that it stays mended.

use super::fault;
use super::scenario::{Habit, Hello, LastWords, Mood, Order, Post, Scenario, Step, Weather};
use crate::mqtt::limits::Limits;

/// A scenario of clients that speak MQTT 5 or not, with these limits of the broker's.
fn scenario(speaks_v5: &[bool], limits: Limits, steps: Vec<Step>) -> Scenario {
    Scenario {
        seed: 1,
        limits,
        durable: false,
        rows_per_look: 10,
        fetch_page: 3,
        fetch_retry_s: 1_000_000,
        batch_size: 4,
        pool_queue_len_max: 100_000,
        speaks_v5: speaks_v5.to_vec(),
        steps,
    }
}

fn windows(receive_max: u16, inflight_max: u16) -> Limits {
    Limits {
        receive_max,
        inflight_max,
        ..Limits::default()
    }
}

fn post(topic: &'static str, qos: u8, retain: bool, count: u8) -> Post {
    Post {
        topic,
        qos,
        retain,
        count,
    }
}

fn weather(late_ms: u32, mood: Mood) -> Step {
    Step::Store(Weather { late_ms, mood })
}

#[track_caller]
fn nothing_is_wrong(scenario: &Scenario) {
    // Whether it shows may depend on how late the store is, so a few runs each.
    for seed in 0..20 {
        let run = Scenario {
            seed,
            ..scenario.clone()
        };
        assert_eq!(fault(&run), None, "seed {seed} of\n{scenario}");
    }
}

#[test]
fn a_qos_2_message_counts_once_against_receive_maximum() {
    nothing_is_wrong(&scenario(
        &[true],
        windows(5, 1),
        vec![
            Step::Connect(0, Hello::persistent()),
            Step::Rest(1),
            Step::Publish(0, post("a/x", 2, false, 5)),
        ],
    ));
}

#[test]
fn pubacks_of_what_is_sent_again_leave_in_the_order_in_which_it_is_sent_again() {
    let narrow = Hello {
        pipe_bytes: 32,
        ..Hello::persistent()
    };
    for weather in [weather(0, Mood::Fair), weather(800, Mood::Fair)] {
        for step in [
            Step::Disconnect(0, false),
            Step::Connect(0, narrow.clone()),
            Step::Cut(0),
        ] {
            nothing_is_wrong(&scenario(
                &[false],
                windows(20, 5),
                vec![
                    weather.clone(),
                    Step::Connect(0, narrow.clone()),
                    Step::Rest(7000),
                    Step::Publish(0, post("a/y", 1, false, 8)),
                    Step::Turns(2),
                    step,
                    Step::Rest(40_000),
                ],
            ));
        }
    }
}

#[test]
fn what_is_sent_again_keeps_the_window_of_the_new_connection() {
    let narrow = Hello {
        receive_max: 1,
        ..Hello::persistent()
    };
    for durable in [false, true] {
        nothing_is_wrong(&Scenario {
            durable,
            ..scenario(
                &[true, true],
                windows(5, 2),
                vec![
                    Step::Connect(0, Hello::persistent()),
                    Step::Connect(1, Hello::persistent()),
                    Step::Rest(5),
                    Step::Subscribe(0, "#", 2),
                    Step::Rest(5),
                    Step::Acknowledge(0, Habit::Never),
                    Step::Publish(1, post("a/x", 2, true, 2)),
                    Step::Rest(5),
                    Step::Connect(0, narrow.clone()),
                ],
            )
        });
    }
}

#[test]
fn what_is_published_right_behind_a_subscribe_comes_in_order() {
    for expiry_s in [0, 3600] {
        let hello = Hello {
            expiry_s,
            ..Hello::persistent()
        };
        nothing_is_wrong(&scenario(
            &[true, false],
            windows(2, 5),
            vec![
                Step::Connect(0, hello),
                Step::Connect(1, Hello::persistent()),
                Step::Rest(1000),
                Step::Subscribe(0, "a/x", 1),
                Step::Publish(1, post("a/x", 1, false, 3)),
                Step::Subscribe(1, "b/x", 2),
                Step::Publish(1, post("b/x", 2, true, 3)),
            ],
        ));
    }
}

#[test]
fn messages_that_no_store_has_do_not_overtake_those_that_were_held() {
    nothing_is_wrong(&scenario(
        &[true, false],
        windows(5, 100),
        vec![
            Step::Connect(0, Hello::persistent()),
            Step::Connect(1, Hello::persistent()),
            weather(0, Mood::Mute),
            Step::Turns(4),
            Step::Subscribe(1, "#", 1),
            Step::Publish(1, post("b/x", 0, false, 8)),
            Step::Publish(1, post("a/x", 1, false, 2)),
            Step::Connect(1, Hello::persistent()),
            Step::Turns(4),
            Step::Publish(1, post("b/x", 0, true, 3)),
        ],
    ));
}

#[test]
fn what_was_acknowledged_before_the_connection_was_lost_moves_the_position() {
    nothing_is_wrong(&scenario(
        &[true],
        windows(5, 1),
        vec![
            Step::Connect(0, Hello::persistent()),
            Step::Rest(5),
            Step::Subscribe(0, "b/y", 2),
            Step::Rest(10),
            weather(2, Mood::Fair),
            Step::Publish(0, post("b/y", 1, false, 8)),
            Step::Turns(6),
            Step::Cut(0),
            Step::Rest(200),
        ],
    ));
}

#[test]
fn a_message_that_its_retained_copy_stood_for_moves_the_position() {
    let limits = Limits {
        queue_len_max: 3,
        ..windows(2, 5)
    };
    let narrow = Hello {
        receive_max: 1,
        ..Hello::persistent()
    };
    nothing_is_wrong(&scenario(
        &[false, true],
        limits,
        vec![
            Step::Connect(1, narrow),
            Step::Rest(1),
            Step::Subscribe(1, "b/x", 2),
            Step::Rest(2),
            Step::Subscribe(1, "+/x", 2),
            Step::Publish(1, post("b/x", 1, true, 8)),
        ],
    ));
}

#[test]
fn a_will_waits_for_its_store_as_long_as_it_takes() {
    let will = Some(LastWords {
        topic: "a/y",
        qos: 1,
        delay_s: 0,
    });
    nothing_is_wrong(&scenario(
        &[true],
        windows(2, 2),
        vec![
            Step::Connect(
                0,
                Hello {
                    will,
                    ..Hello::persistent()
                },
            ),
            Step::Turns(3),
            Step::Cut(0),
            weather(0, Mood::Down),
            Step::Rest(40_000),
        ],
    ));
}

#[test]
fn nothing_comes_before_the_connack() {
    let short = Hello {
        expiry_s: 0,
        ..Hello::persistent()
    };
    nothing_is_wrong(&Scenario {
        durable: true,
        ..scenario(
            &[true],
            windows(2, 5),
            vec![
                Step::Connect(0, Hello::persistent()),
                Step::Rest(100),
                Step::Subscribe(0, "b/y", 2),
                Step::Rest(100),
                Step::Publish(0, post("b/y", 2, true, 1)),
                Step::Connect(0, short),
            ],
        )
    });
}

#[test]
fn a_session_does_not_take_the_answers_of_the_one_before() {
    let short = Hello {
        expiry_s: 0,
        ..Hello::persistent()
    };
    nothing_is_wrong(&scenario(
        &[true],
        windows(5, 2),
        vec![
            Step::Connect(0, short),
            Step::Rest(5),
            Step::Subscribe(0, "b/y", 2),
            weather(30, Mood::Fair),
            Step::Connect(0, Hello::persistent()),
            Step::Turns(6),
            Step::Subscribe(0, "b/y", 2),
            Step::Rest(1000),
        ],
    ));
}

#[test]
fn a_session_that_is_kept_no_longer_still_knows_what_its_client_has() {
    let short = Hello {
        expiry_s: 0,
        ..Hello::persistent()
    };
    for (newest, inflight_max, late_ms) in [(false, 2, 0), (true, 100, 0), (false, 100, 30)] {
        let mut steps = vec![
            Step::Connect(0, Hello::persistent()),
            Step::Connect(1, Hello::persistent()),
            Step::Rest(10),
            Step::Subscribe(0, "b/x", 2),
            Step::Rest(10),
            Step::Acknowledge(0, Habit::Never),
            Step::Publish(1, post("b/x", 2, false, 2)),
            Step::Rest(200),
            Step::Publish(1, post("b/x", 2, false, 2)),
            Step::Rest(200),
        ];
        if newest {
            steps.extend([Step::Answer(0, Order::Newest), Step::Rest(200)]);
        }
        steps.extend([
            Step::Crash,
            weather(late_ms, Mood::Fair),
            Step::Connect(0, short.clone()),
        ]);
        steps.extend([Step::Acknowledge(0, Habit::Promptly), Step::Rest(7000)]);
        nothing_is_wrong(&Scenario {
            durable: true,
            fetch_page: 1,
            batch_size: 1,
            ..scenario(&[true, true], windows(2, inflight_max), steps)
        });
    }
}

#[test]
fn a_subscription_whose_connection_went_before_its_rules_ran_is_read_when_it_is_back() {
    nothing_is_wrong(&Scenario {
        durable: true,
        batch_size: 256,
        ..scenario(
            &[false],
            windows(2, 2),
            vec![
                Step::Connect(0, Hello::persistent()),
                Step::Rest(1000),
                Step::Publish(0, post("b/x", 2, false, 2)),
                Step::Refuse(1),
                Step::Subscribe(0, "b/#", 2),
                Step::Turns(6),
            ],
        )
    });
}

#[test]
fn a_suback_waits_for_its_own_row_and_not_for_the_one_of_the_session() {
    let clean = Hello {
        clean: true,
        ..Hello::persistent()
    };
    nothing_is_wrong(&Scenario {
        durable: true,
        batch_size: 1,
        ..scenario(
            &[true],
            windows(20, 100),
            vec![
                Step::Connect(0, clean),
                weather(0, Mood::Flaky),
                Step::Turns(4),
                Step::Subscribe(0, "a/y", 0),
                Step::Rest(40_000),
            ],
        )
    });
}

#[test]
fn a_session_that_is_to_live_longer_does_so_when_its_client_hears_of_it() {
    let for_20_s = Hello {
        expiry_s: 20,
        ..Hello::persistent()
    };
    nothing_is_wrong(&Scenario {
        durable: true,
        batch_size: 1,
        ..scenario(
            &[true],
            windows(5, 5),
            vec![
                Step::Connect(0, Hello::persistent()),
                Step::Rest(10),
                Step::Subscribe(0, "a/x", 2),
                Step::Rest(200),
                Step::Connect(0, for_20_s),
                Step::Turns(6),
                Step::Publish(0, post("a/x", 1, false, 8)),
                Step::Connect(0, Hello::persistent()),
                weather(0, Mood::Flaky),
                Step::Turns(5),
                Step::Crash,
                Step::Rest(40_000),
            ],
        )
    });
}

#[test]
fn a_question_that_a_stop_cuts_short_is_no_answer() {
    for durable in [false, true] {
        nothing_is_wrong(&Scenario {
            durable,
            ..scenario(
                &[true],
                windows(5, 5),
                vec![
                    Step::Connect(0, Hello::persistent()),
                    Step::Rest(10),
                    weather(0, Mood::Down),
                    Step::Subscribe(0, "b/x", 2),
                    Step::Turns(3),
                    Step::Stop,
                ],
            )
        });
    }
}
