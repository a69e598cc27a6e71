//! A page cache survives kill -9, so only the system calls can show this: a sync to disk lies between reading a
//! PUBLISH and writing its acknowledgement.

use std::fs;

use crate::harness::Mqtt;
use crate::harness::host::Host;
use crate::harness::raw::{Hello, Said};
use crate::harness::tools::tool;

/// One system call: the lines on which it began and ended, and what it was.
#[derive(Debug)]
struct Call {
    began: usize,
    ended: usize,
    text: String,
}

#[tokio::test]
async fn a_sync_to_disk_comes_between_a_publish_and_its_acknowledgement() {
    let Some(strace) = tool("strace") else { return };
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    let trace = folder.path().join("trace");
    let calls = "trace=read,readv,recvfrom,recvmsg,write,writev,sendto,sendmsg,fsync,fdatasync";
    let [strace, file] = [&strace, &trace].map(|path| path.to_str().expect("UTF-8"));
    let mut host = Host::plan()
        .under([strace, "-f", "-y", "-s", "256", "-e", calls, "-o", file])
        .start()
        .await;
    let mut sensor = host.raw(Hello::clean(Mqtt::V311, "sensor")).await;
    // Packet identifiers that read as text: "AB" and "CD", and so on.
    for (id, qos, payload) in [
        (0x4142, 1, "at least once"),
        (0x4344, 2, "exactly once"),
        (0x4546, 1, "once more"),
    ] {
        sensor.publish(id, qos, "t/1", payload).await;
        let answer = if qos == 1 {
            Said::PubAck(id, 0)
        } else {
            Said::PubRec(id, 0)
        };
        assert_eq!(sensor.next().await, answer);
    }
    host.terminate().await;
    let calls = calls_of(&fs::read_to_string(&trace).expect("strace has written it"));
    for (payload, answer) in [
        ("at least once", r"@\2AB"),
        ("exactly once", r"P\2CD"),
        ("once more", r"@\2EF"),
    ] {
        let read = find(&calls, |call| is_input(call) && call.text.contains(payload));
        let written = find(&calls, |call| {
            is_output(call) && call.text.contains(&format!("\"{answer}"))
        });
        let between = |call: &&Call| call.began > read.ended && call.ended < written.began;
        let syncs: Vec<&Call> = calls.iter().filter(|call| is_sync(call)).collect();
        assert!(
            syncs.iter().any(between),
            "no sync between\n{read:?} and\n{written:?}; syncs: {syncs:#?}"
        );
    }
}

fn find(calls: &[Call], wanted: impl Fn(&Call) -> bool) -> &Call {
    let mut found = calls.iter().filter(|call| wanted(call));
    found
        .next()
        .unwrap_or_else(|| panic!("strace saw no such call among {}", calls.len()))
}

fn is_input(call: &Call) -> bool {
    call.text.starts_with("re")
}

fn is_output(call: &Call) -> bool {
    call.text.starts_with("write") || call.text.starts_with("send")
}

/// A sync of the database or its log that succeeded.
fn is_sync(call: &Call) -> bool {
    let sync = call.text.starts_with("fsync") || call.text.starts_with("fdatasync");
    sync && call.text.contains("hookline.db") && call.text.trim_end().ends_with("= 0")
}

/// `123 fsync(7</…>) = 0`, or in two parts: `123 fsync(7</…> <unfinished ...>`, `123 <... fsync resumed>) = 0`.
fn calls_of(trace: &str) -> Vec<Call> {
    let mut calls = Vec::new();
    let mut unfinished = std::collections::HashMap::new();
    for (at, line) in trace.lines().enumerate() {
        let Some((thread, text)) = line.split_once(' ') else {
            continue;
        };
        let text = text.trim_start();
        if let Some(start) = text.strip_suffix("<unfinished ...>") {
            unfinished.insert(thread, (at, start.to_owned()));
        } else if text.starts_with("<... ") {
            let end = text.split_once("resumed>").map_or("", |(_, end)| end);
            let Some((began, start)) = unfinished.remove(thread) else {
                continue;
            };
            calls.push(Call {
                began,
                ended: at,
                text: start + end,
            });
        } else {
            calls.push(Call {
                began: at,
                ended: at,
                text: text.to_owned(),
            });
        }
    }
    calls
}
